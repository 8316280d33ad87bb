"""Numbered files that only grow: the values of an alias, the marks of a version, the journal.

File 7 of a series is ``00000007.json`` and names the sha256 of file 6. So a reader sees a file that
is missing, replaced or from another history. Of two writers of one number one wins, and the other
takes the next.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..files.digests import sha256_bytes
from ..storages.storage import Storage, write_once
from .entry import InvalidEntryError, parse_object

DIGITS = 8
LIMIT = 64 << 10
"""Bytes of one file of a series."""
_FILE = re.compile(rf"([0-9]{{{DIGITS}}})\.json\Z")
_TRIES = 200


class BrokenSeriesError(Exception):
    """A series with a gap, or whose files do not chain. The text says where."""


@dataclass(frozen=True)
class Value:
    """One file of a series: its number (from 1), its bytes, and what it says."""

    number: int
    raw: bytes

    @property
    def digest(self) -> str:
        return sha256_bytes(self.raw)

    @property
    def data(self) -> Mapping[str, Any]:
        return json.loads(self.raw)


def file_of(number: int) -> str:
    """The name of the file with this number."""
    return f"{number:0{DIGITS}}.json"


def series_number(file: str) -> int | None:
    """The number of a series' file, by its name; ``None`` for another file."""
    match = _FILE.match(file)
    return None if match is None else int(match[1])


def numbers_in(folder: str, paths: Iterable[str]) -> list[int]:
    """The numbers of a series' files among ``paths``, in order; files with other names are not its
    own. Raises :class:`BrokenSeriesError` for a gap."""
    start = f"{folder}/"
    names = (path.removeprefix(start) for path in paths if path.startswith(start))
    numbers = sorted(int(match[1]) for name in names if (match := _FILE.match(name)))
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            raise BrokenSeriesError(f"{folder}/{file_of(expected)} is missing")
    return numbers


def read_value(storage: Storage, folder: str, number: int) -> Value:
    """One file of a series. Raises ``FileNotFoundError``, and :class:`BrokenSeriesError` for one
    that is not a JSON object."""
    path = f"{folder}/{file_of(number)}"
    raw = storage.read(path, LIMIT + 1)
    try:
        parse_object(raw, LIMIT)
    except InvalidEntryError as error:
        raise BrokenSeriesError(f"Cannot use {path}: {error}") from None
    return Value(number, raw)


def check_chain(folder: str, before: Value | None, value: Value) -> None:
    """Raise :class:`BrokenSeriesError` where ``value`` was not written after ``before``."""
    expected = None if before is None else before.digest
    if value.data.get("previous") != expected:
        raise BrokenSeriesError(
            f"{folder}/{file_of(value.number)} was not written after the file before it"
        )


def last_two(
    storage: Storage, folder: str, paths: Iterable[str]
) -> tuple[Value | None, Value | None]:
    """The last value and the one before it, whose chain holds (``None`` where there is none)."""
    numbers = numbers_in(folder, paths)
    if not numbers:
        return None, None
    before = read_value(storage, folder, numbers[-2]) if len(numbers) > 1 else None
    value = read_value(storage, folder, numbers[-1])
    check_chain(folder, before, value)
    return before, value


def append(
    storage: Storage,
    folder: str,
    make: Callable[[Value | None], Mapping[str, Any] | None],
    last: Value | None,
    *,
    prepare: Callable[[Value], Callable[[], None]] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Value | None:
    """Write the file after ``last``, with what ``make(last)`` says. It is asked again with the
    newer last file if somebody else was faster. If it returns ``None``, nothing is written.

    ``prepare`` gets each value before it is written. What it returned is called if somebody else
    wrote another value with that number. ``make`` is asked about each value that others wrote, in
    order; the last answer counts.
    """
    for attempt in range(_TRIES):
        data = make(last)
        if data is None:  # unless there is a newer one, which the listing did not show yet
            try:
                last = _next(storage, folder, last)
            except FileNotFoundError:
                return None
            continue
        number = 1 if last is None else last.number + 1
        previous = None if last is None else last.digest
        raw = canonical({**data, "previous": previous})
        value = Value(number, raw)
        undo = None if prepare is None else prepare(value)
        if write_once(storage, f"{folder}/{file_of(number)}", raw):
            return value
        if undo is not None:
            undo()
        last = _next(storage, folder, last)
        wait(random.uniform(0, min(1.0, 0.01 * 1.5**attempt)))
        # all that others wrote meanwhile at once, or a slow writer never comes up with them
        with suppress(FileNotFoundError):
            while True:
                make(last)
                last = _next(storage, folder, last)
    raise BrokenSeriesError(f"{folder}: somebody else wrote {_TRIES} files meanwhile")


def _next(storage: Storage, folder: str, last: Value | None) -> Value:
    """The value after ``last``. Raises ``FileNotFoundError`` where there is none."""
    value = read_value(storage, folder, 1 if last is None else last.number + 1)
    check_chain(folder, last, value)
    return value


def canonical(data: Mapping[str, Any]) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, UTF-8, a line break at the end."""
    text = json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()
