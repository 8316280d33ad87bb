"""transformers' warnings and exceptions, collected for findings."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from ...manifests.findings.code import Code
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REPORT = "LOAD REPORT"
"""The table of missing and unexpected tensors, for which we report findings."""


@contextmanager
def quiet() -> Generator[list[str]]:
    """No progress bars, and this thread's warnings go into the list, each text once, at any
    verbosity of transformers.

    Other threads' warnings, and all warnings afterwards, go to the usual handlers.
    """
    me = threading.get_ident()
    said: list[str] = []
    root = transformers_logging.get_logger("transformers")
    kept, level = list(root.handlers), root.level
    listener = _Listener(said, me, level)
    shown = transformers_logging.is_progress_bar_enabled()
    if shown:
        transformers_logging.disable_progress_bar()
    for handler in kept:
        handler.addFilter(listener.spares)
    root.addHandler(listener)
    root.setLevel(min(level, logging.WARNING))
    try:
        yield said
    finally:
        root.setLevel(level)
        root.removeHandler(listener)
        for handler in kept:
            handler.removeFilter(listener.spares)
        if shown:
            transformers_logging.enable_progress_bar()


def failed(code: Code, message: str, error: Exception, where: Where) -> AttachError:
    """An exception of transformers as a finding."""
    found = f"{type(error).__name__}: {str(error).strip()[:500]}"
    return AttachError(code.finding(message, where, found=found))


class _Listener(logging.Handler):
    def __init__(self, said: list[str], thread: int, level: int) -> None:
        super().__init__(logging.WARNING)
        self._said: list[str] = said
        self._thread: int = thread
        self._usual: int = level

    def spares(self, record: logging.LogRecord) -> bool:
        """Whether a record is for the usual handlers."""
        return record.thread != self._thread and record.levelno >= self._usual

    def emit(self, record: logging.LogRecord) -> None:
        text = _COLOURS.sub("", record.getMessage()).strip()
        if record.thread == self._thread and _REPORT not in text and text not in self._said:
            self._said.append(text)
