"""Progress of downloads and verification: bars on a terminal, one plain line elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .console import clean, err

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from ..registry.files.progress import Progress as RegistryProgress

NARROW = 72
"""On narrower terminals only a name and a percentage fit."""


class Bars:
    """Our ``Progress``, drawn by rich.

    The first line sums up all files started so far, or says ``doing`` while there is no transfer.
    Below it is a line for each file in transfer.
    """

    def __init__(self, bars: Progress, doing: str, name_width: int) -> None:
        self._bars = bars
        self._width = name_width
        self._doing = clean(doing)[:name_width]
        self._all: TaskID = bars.add_task(self._doing, total=None)
        self._tasks: dict[str, TaskID] = {}
        self._started = self._done = self._size = 0
        self._sizes_known = True

    def start(self, file: str, total: int | None) -> None:
        self._started += 1
        self._size += total or 0
        self._sizes_known = self._sizes_known and total is not None
        self._tasks[file] = self._bars.add_task(self._short(file), total=total)
        self._count()

    def advance(self, file: str, count: int) -> None:
        self._bars.advance(self._tasks[file], count)
        self._bars.advance(self._all, count)

    def done(self, file: str) -> None:
        self._done += 1
        self._bars.remove_task(self._tasks.pop(file))
        self._count()

    def _count(self) -> None:
        busy = self._done < self._started
        files = f"{self._done} of {self._started} files"
        total = self._size if self._sizes_known and busy else None
        self._bars.update(self._all, description=files if busy else self._doing, total=total)

    def _short(self, file: str) -> str:
        name = clean(file)
        return name if len(name) <= self._width else f"...{name[3 - self._width :]}"


@contextmanager
def shown_progress(doing: str) -> Generator[RegistryProgress | None]:
    """Bars on stderr during downloads, removed at the end. Without a terminal: one line that says
    ``doing``, and ``None``."""
    if not err.fancy:
        err.line(f"{doing} ...")
        yield None
        return
    from rich.progress import Progress

    console = err.console
    narrow = console.width < NARROW
    name_width = max(8, console.width - 12 if narrow else console.width - 54)
    with Progress(*_columns(narrow), console=console, transient=True) as bars:
        yield Bars(bars, doing, name_width)


def _columns(narrow: bool) -> tuple[ProgressColumn, ...]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    name = TextColumn("{task.description}", markup=False)
    if narrow:
        return (SpinnerColumn(), name, TaskProgressColumn())
    return (SpinnerColumn(), name, BarColumn(bar_width=16), DownloadColumn(), TransferSpeedColumn())
