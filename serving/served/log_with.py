"""The log beside that of an engine, which sets up handlers for its own logger only."""

from __future__ import annotations

import logging


def log_with(engine: str) -> None:
    """Write what this package says where the engine's log goes, from INFO on.

    Nothing changes where the program has set up our logger itself.

    Args:
        engine: The name of the engine's logger, which has its handlers already.
    """
    log = logging.getLogger("adapterdock")
    if not log.handlers:
        log.handlers = list(logging.getLogger(engine).handlers)
        log.setLevel(logging.INFO)
