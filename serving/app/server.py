"""The app under uvicorn, on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from .build_app import build_app, stop
from .loaded import Loaded
from .settings import Settings

log = logging.getLogger("adapterdock")


class DrainingServer(uvicorn.Server):
    """uvicorn, that answers what it has taken before it stops.

    At the first SIGTERM or SIGINT new requests get 503 and ``/health`` says 503, so that a
    platform sends no more; then, once every answer is complete, uvicorn stops. A second signal
    stops it at once.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, seconds: float) -> None:
        super().__init__(config)
        self._app, self._seconds = app, seconds
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal, stop."""
        self._captured_signals.append(sig)
        if self._stopping is None and self._loop is not None and self.started:
            self._loop.call_soon_threadsafe(self._begin)
        else:
            self.force_exit = self.should_exit = True

    def _begin(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await stop(self._app, self._seconds)
        self.should_exit = True


def serve(
    settings: Settings,
    host: str,
    port: int,
    loaded: Loaded,
    started: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        host: A name or address of this machine.
        port: 0 for any that is free.
        loaded: The model.
        started: Called with the URL once requests are answered.

    Raises:
        UsageError: The address cannot be used.
    """
    sock = bound(host, port)
    app = build_app(settings, loaded)
    config = uvicorn.Config(
        app,
        log_config=None,  # the caller chose where lines go
        access_log=False,
        timeout_graceful_shutdown=1,  # our own drain has waited already
        server_header=False,
    )
    server = DrainingServer(config, app, settings.drain)
    number = sock.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    threading.Thread(
        target=_say, args=(server, lambda: started(f"http://{shown}:{number}")), daemon=True
    ).start()
    with sock:
        server.run(sockets=[sock])


def _say(server: uvicorn.Server, started: Callable[[], None]) -> None:
    while not server.started and not server.should_exit:
        threading.Event().wait(0.02)
    if server.started:
        started()


def bound(host: str, port: int) -> socket.socket:
    """A socket of this address. Raises :class:`UsageError` if it cannot be used."""
    try:
        family, kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            codes.SERVE_UNAVAILABLE.finding(
                f"Cannot listen on {host}:{port}",
                found=reason,
                hint="Choose another --host or --port.",
            )
        ) from error
    return sock


def is_this_machine(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
