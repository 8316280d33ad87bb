"""A folder that one process at a time writes into."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.findings.code import Code
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def alone(folder: Path, busy: Code, message: str) -> Generator[None]:
    """Holds ``folder`` while no other process does. A file system that cannot lock is not held.

    Raises:
        UsageError: ``busy`` with ``message``: another process holds it.
        OSError: The folder cannot be opened.
    """
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(busy.finding(message, Where(file=str(folder)))) from error
        except OSError:
            pass
        yield
    finally:
        os.close(number)
