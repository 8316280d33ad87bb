"""The progress of a long transfer or verification, for a display."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of each file, under one name from start to end.

    Several files may be in progress, but the calls come one at a time. A file that is transferred
    and then verified starts twice, one after the other.
    """

    def start(self, file: str, total: int | None) -> None:
        """Work on ``file`` starts; ``total`` is its size in bytes, if known."""
        ...

    def advance(self, file: str, count: int) -> None:
        """``count`` more bytes were transferred or read."""
        ...

    def done(self, file: str) -> None:
        """``file`` is complete, or it failed."""
        ...


class Silent:
    """A progress that shows nothing."""

    def start(self, file: str, total: int | None) -> None: ...

    def advance(self, file: str, count: int) -> None: ...

    def done(self, file: str) -> None: ...


class OneAtATime:
    """Lets several threads share a ``Progress`` that is not thread-safe."""

    def __init__(self, progress: Progress) -> None:
        self._progress: Progress = progress
        self._lock: threading.Lock = threading.Lock()

    def start(self, file: str, total: int | None) -> None:
        with self._lock:
            self._progress.start(file, total)

    def advance(self, file: str, count: int) -> None:
        with self._lock:
            self._progress.advance(file, count)

    def done(self, file: str) -> None:
        with self._lock:
            self._progress.done(file)


@contextmanager
def transfer_shown(
    progress: Progress | None, file: str, total: int
) -> Generator[Callable[[int], None] | None]:
    """What takes the number of bytes of each step of one transfer."""
    if progress is None:
        yield None
        return
    progress.start(file, total)
    try:
        yield lambda count: progress.advance(file, count)
    finally:
        progress.done(file)
