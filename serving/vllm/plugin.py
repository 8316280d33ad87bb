"""What vLLM's entry points name. Imports only what cannot fail: an ``ImportError`` here, or a
factory that raises, is logged by vLLM, and the server starts without the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Endpoint


def general() -> None:
    """The entry point in ``vllm.general_plugins``, which runs in each process of a server.

    Checks what can be checked in a moment, before the engine starts.

    Raises:
        SystemExit: The server may not start; the message has the findings.
    """
    from .start import stop_unless_ready

    stop_unless_ready()


def endpoint() -> Endpoint:
    """The entry point in ``vllm.endpoint_plugins``, which runs in each API server."""
    from .endpoint import Endpoint

    return Endpoint()
