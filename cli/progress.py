"""Progress of downloads on a terminal; silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from ..registry import progress as registry_progress
from .console import err


class RichProgress:
    """Our :class:`~adapterdock.registry.progress.Progress`, drawn by rich."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def start(self, file: str, total: int | None) -> None:
        self._tasks[file] = self._bars.add_task(file, total=total)

    def advance(self, file: str, count: int) -> None:
        self._bars.advance(self._tasks[file], count)

    def done(self, file: str) -> None:
        self._bars.remove_task(self._tasks.pop(file))


@contextmanager
def rich_progress() -> Iterator[registry_progress.Progress | None]:
    """Bars on stderr while files arrive, gone at the end; ``None`` where nobody watches."""
    console = err()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
        yield RichProgress(bars)
