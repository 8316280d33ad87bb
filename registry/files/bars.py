"""Progress bars for the Python API: on a terminal, and in a notebook."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...manifests.findings.notebook import frame, text
from ...manifests.findings.said import clean, counted

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .progress import Progress

REDRAWN_EVERY = 0.1
"""Seconds between two drawings in a notebook."""


@contextmanager
def progress_bars(doing: str = "Fetching files") -> Generator[Progress]:
    """Bars for the files that a call fetches or verifies, while the block runs.

    Pass the result as ``progress`` to ``load``, ``lock`` or ``pull``. On a terminal the bars go
    away at the end. In a notebook one line stays, which says how much was done; no widgets are
    needed. Elsewhere nothing is shown.

    Args:
        doing: What is said while there is no transfer.

    Yields:
        The progress to pass on.
    """
    from rich import get_console

    if get_console().is_jupyter:
        bars = NotebookBars(doing)
        yield bars
        bars.finish()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(bar_width=16), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        yield Bars(drawn, doing, 40)


class Bars:
    """Our ``Progress``, drawn by rich.

    The first line sums up all files started so far, or says ``doing`` while there is no transfer.
    Below it is a line for each file in transfer.
    """

    def __init__(self, bars: RichProgress, doing: str, name_width: int) -> None:
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


class NotebookBars:
    """Our ``Progress`` as one output of a notebook, which is redrawn."""

    def __init__(self, doing: str) -> None:
        from IPython.display import (  # pyright: ignore[reportMissingImports]
            HTML,
            display,
        )

        self._html: Any = HTML
        self._doing = doing
        self._files: dict[str, tuple[int, int | None]] = {}
        self._done = self._bytes = 0
        self._drawn = 0.0
        self._handle: Any = display(self._html(frame(text(doing))), display_id=True)

    def start(self, file: str, total: int | None) -> None:
        self._files[file] = (0, total)
        self._draw()

    def advance(self, file: str, count: int) -> None:
        got, total = self._files[file]
        self._files[file] = (got + count, total)
        self._bytes += count
        self._draw()

    def done(self, file: str) -> None:
        del self._files[file]
        self._done += 1
        self._draw()

    def finish(self) -> None:
        """Say how much was done."""
        said = "Nothing had to be fetched: every file is here"
        if self._done:
            size = f"{self._bytes / 1e6:,.1f} MB"
            said = f"{counted(self._done, 'file')} fetched or verified ({size})"
        self._handle.update(self._html(frame(text(said))))

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn < REDRAWN_EVERY:
            return
        self._drawn = now
        rows = [
            f"{_bar(got, total)} <code>{text(file)}</code>"
            for file, (got, total) in self._files.items()
        ]
        done = f"{self._doing}: {counted(self._done, 'file')} done"
        self._handle.update(self._html(frame(text(done), *rows)))


def _bar(got: int, total: int | None) -> str:
    return (
        f'<progress max="{total}" value="{got}"></progress>' if total else "<progress></progress>"
    )
