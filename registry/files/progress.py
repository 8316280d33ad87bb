"""How far a long transfer or verification is, told to whoever wants to show it."""

from __future__ import annotations

import threading
from typing import Protocol


class Progress(Protocol):
    """Told of each file by one name from start to end. A renderer implements this.

    Files come and go in parallel, but the calls themselves come one at a time. A file that is
    transferred and then verified where it lies starts twice, one after the other.
    """

    def start(self, file: str, total: int | None) -> None:
        """Work on ``file`` begins; ``total`` is its size in bytes, where that is known."""
        ...

    def advance(self, file: str, count: int) -> None:
        """``count`` bytes more were transferred or read."""
        ...

    def done(self, file: str) -> None:
        """Nothing more comes of ``file``: it is complete, or it failed."""
        ...


class Silent:
    """A progress that shows nothing."""

    def start(self, file: str, total: int | None) -> None: ...

    def advance(self, file: str, count: int) -> None: ...

    def done(self, file: str) -> None: ...


class OneAtATime:
    """Lets several threads tell one ``Progress``, which need not be thread-safe itself."""

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
