"""What a registry on a web server holds, which lists nothing: read from the journal, or probed.

A series has no gaps, so its last file is found by asking for a few numbers. Versions are found in
the journal; one that a killed publisher left out of it is found by its exact number only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..files.pool import each
from ..storages.layout import JOURNAL, alias_folder, entry_file, is_signature, marks_folder
from ..storages.storage import Storage
from .journal import head
from .marks import ACTIONS
from .series import Value, file_of, read_value

_WORKERS = 16
"""Requests at once."""
_LEFT_OUT = 1000
"""Lines that may be missing from a journal."""


@dataclass
class Lines:
    """The lines of a journal that were read. None of them ever changes, so that only newer ones are
    read again. Usable from several threads."""

    _values: list[Value] = field(default_factory=list)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def read(self, storage: Storage) -> list[Value]:
        """All lines until now. Raises ``BrokenSeriesError`` and ``FileNotFoundError`` where they
        are not one series."""
        with self._reading:
            known = len(self._values)
            last = head(storage, known)
            if last is not None and last.number > known:
                numbers = range(known + 1, last.number)
                found = each(lambda n: read_value(storage, JOURNAL, n), numbers, _WORKERS)
                self._values += [*found, last]
            return list(self._values)


def paths_of(name: str, lines: list[Value]) -> Iterator[str]:
    """The files of one name that the journal speaks of."""
    last: dict[str, int] = {}
    for line in lines:
        data = line.data
        if data.get("name") != name:
            continue
        signature = data.get("signature")
        if isinstance(signature, str) and is_signature(name, signature):
            yield signature
        what, version, alias = data.get("what"), data.get("version"), data.get("alias")
        if what == "publish" and isinstance(version, str):
            yield entry_file(name, version)
        elif what in ACTIONS and isinstance(version, str):
            _seen(last, marks_folder(name, version), line)
        elif what in ("promote", "demote") and isinstance(alias, str):
            _seen(last, alias_folder(name, alias), line)
    for folder, number in last.items():
        yield from series_paths(folder, number)


def _seen(last: dict[str, int], folder: str, line: Value) -> None:
    serial = line.data.get("serial")
    # each value has its line, but for those that kills left out
    if type(serial) is int and 0 < serial <= line.number + _LEFT_OUT:
        last[folder] = max(last.get(folder, 0), serial)


def series_paths(folder: str, last: int) -> list[str]:
    """The files of a series up to this number."""
    return [f"{folder}/{file_of(number)}" for number in range(1, last + 1)]


def probed(storage: Storage, folder: str, known: int = 0) -> list[str]:
    """The files of a series, of which number ``known`` was seen before."""
    low, step = known, 1
    while _is_there(storage, folder, low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if _is_there(storage, folder, middle):
            low = middle
        else:
            high = middle
    return series_paths(folder, low)


def _is_there(storage: Storage, folder: str, number: int) -> bool:
    try:
        storage.read(f"{folder}/{file_of(number)}", 1)
    except FileNotFoundError:
        return False
    return True
