"""The lines that a server writes to stderr: text for people, or JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ...manifests.findings.errors import AdapterdockError

LOGGERS = ("adapterdock", "uvicorn")
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; all others are what a caller said with ``extra=``."""


class TextLines(logging.Formatter):
    """``2026-11-30T16:26:08.123Z INFO message``; further lines of a message are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        said = "\n  ".join(_said(record).split("\n"))
        return f"{_time(record)} {record.levelname} {said}"


class JsonLines(logging.Formatter):
    """One JSON object for each record, in one line: ``time``, ``level``, ``logger``, ``message``;
    then what the record says beside its text (``event``, ``manifest``, ``codes``, ...), and
    ``exception`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _KNOWN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def logged_to_stderr(form: logging.Formatter, level: int = logging.INFO) -> Generator[None]:
    """During the block, write what this package says from ``level`` on, and uvicorn's warnings,
    to stderr in this form, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    for one, least in zip(loggers, (level, max(level, logging.WARNING)), strict=True):
        one.handlers, one.propagate = [handler], False
        one.setLevel(least)
    try:
        yield
    finally:
        for one, (handlers, propagate, was) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(was)


def _time(record: logging.LogRecord) -> str:
    said = datetime.fromtimestamp(record.created, timezone.utc)
    return said.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if not record.exc_info:
        return text
    error = record.exc_info[1]
    if isinstance(error, AdapterdockError):  # its findings say everything
        return f"{text}\n{error}"
    return f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
