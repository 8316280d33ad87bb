"""Progress of downloads and verification: bars on a terminal, one plain line elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .console import err

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from ..registry.files.progress import Progress as RegistryProgress

NARROW = 72
"""On narrower terminals only a name and a percentage fit."""


@contextmanager
def shown_progress(doing: str) -> Generator[RegistryProgress | None]:
    """Bars on stderr during downloads, removed at the end. Without a terminal: one line that says
    ``doing``, and ``None``."""
    if err.muted or not err.fancy:
        err.line(f"{doing} ...")
        yield None
        return
    from rich.progress import Progress

    from ..registry.files.bars import Bars

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
