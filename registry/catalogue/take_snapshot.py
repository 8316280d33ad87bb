"""Reads the newest snapshot of a registry, and writes the next one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import StoreError
from ...manifests.findings.finding import Finding
from ...manifests.language.published_names import wrong_name
from ..records.journal import head, note, now
from ..records.series import BrokenSeriesError, read_value, series_number
from ..records.snapshot import (
    LIMIT,
    InvalidSnapshotError,
    decode_snapshot,
    encode_snapshot,
    snapshot_file,
    snapshot_number,
)
from ..records.thin_row import ThinRow
from ..storages.layout import ADAPTERS, JOURNAL, SNAPSHOTS
from ..storages.storage import Storage, write_once
from .catalogue import Catalogue
from .init import require_writable
from .recent import Key, Rows, is_key, lines_after, read_marks, read_rows, recent

_log = logging.getLogger(__name__)

EVERY = 1000
"""Lines of the journal after which ``publish`` writes the next snapshot."""
_TRY_AT = 50
"""``publish`` tries it at every so many lines only: it may fail."""
_TRIES = 5


@dataclass(frozen=True)
class Known:
    """The rows of a snapshot, which has the journal up to line ``number`` (0: there is none).
    ``unread`` are versions that only a newer adapterdock can read; ``problems`` are snapshots that
    were ignored."""

    number: int = 0
    rows: tuple[ThinRow, ...] = ()
    unread: tuple[Key, ...] = ()
    problems: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Taken:
    """A snapshot that was written. ``new`` is false where the registry had it already."""

    path: str
    rows: int
    new: bool


def newest_snapshot(catalogue: Catalogue, newer_than: int = 0) -> Known:
    """The rows of the newest snapshot that can be used, if it has more of the journal than
    ``newer_than`` lines."""
    problems: list[Finding] = []
    for number in sorted(snapshot_numbers(catalogue.storage), reverse=True):
        if number <= newer_than:
            break
        path = f"{SNAPSHOTS}/{snapshot_file(number)}"
        try:
            raw = catalogue.storage.read(path, LIMIT + 1)
            found = decode_snapshot(raw, catalogue.id, number)
            read_value(catalogue.storage, JOURNAL, number)
        except FileNotFoundError:  # a number that the journal does not have
            continue
        except (InvalidSnapshotError, BrokenSeriesError) as error:
            problems.append(
                codes.SNAPSHOT_UNUSABLE.finding(
                    f"{path} cannot be used and was ignored", catalogue.where, found=error
                )
            )
            continue
        again = _read_again(catalogue, found.unread)
        rows = (*found.rows, *again.rows)
        return Known(number, rows, again.unread, tuple(problems))
    return Known(problems=tuple(problems))


def _read_again(catalogue: Catalogue, unread: Iterable[Key]) -> Rows:
    """The rows of versions that the writer of a snapshot was too old to read."""
    keys = [key for key in unread if is_key(*key)]
    read = read_rows(catalogue, keys)
    marks = read_marks(catalogue, {row.key: 1 for row in read.rows})
    rows = tuple(replace(row, marks=marks[row.key]) for row in read.rows)
    return Rows(rows, read.unread)


def snapshot_numbers(storage: Storage) -> list[int]:
    """The journal numbers of the snapshots. On a web server, which lists nothing, the last line of
    the journal names the newest."""
    if storage.lists:
        numbers = map(snapshot_number, storage.find(SNAPSHOTS))
        return [number for number in numbers if number]
    try:
        last = head(storage)
    except BrokenSeriesError:
        return []
    number = None if last is None else last.data.get("snapshot")
    return [number] if type(number) is int and number > 0 else []


def take_snapshot(catalogue: Catalogue) -> Taken | None:
    """Write the snapshot of everything that is published now; ``None`` for an empty registry.

    The whole registry is listed, where that is possible: what a killed publisher left out of the
    journal is in the snapshot. Raises :class:`PolicyError` where nothing can be written.
    """
    require_writable(catalogue)
    for _ in range(_TRIES):
        known = newest_snapshot(catalogue)
        rows, unread, number = _with_recent(catalogue, known)
        if catalogue.storage.lists:
            rows, unread = _with_listed(catalogue, rows)
        if not rows and not unread:
            return None
        if (set(rows), set(unread)) == (set(known.rows), set(known.unread)):
            return Taken(f"{SNAPSHOTS}/{snapshot_file(known.number)}", len(rows), new=False)
        path = f"{SNAPSHOTS}/{snapshot_file(number)}"
        raw = _bytes(catalogue, rows, unread, number)
        made = number > 0 and write_once(catalogue.storage, path, raw)
        # A line names the snapshot for readers of a web server. Where the number was taken, by a
        # damaged file or by one with fewer rows, the next number is free after it.
        note(catalogue.storage, {"what": "snapshot", "at": now()})
        if made:
            return Taken(path, len(rows), new=True)
    raise StoreError(
        codes.SNAPSHOT_UNUSABLE.finding(
            f"Somebody else wrote {_TRIES} snapshots meanwhile", catalogue.where
        )
    )


def snapshot_when_due(catalogue: Catalogue, line: int, newest: int) -> None:
    """Write a snapshot after line ``line`` of the journal, if the ``newest`` one is far behind.

    It never raises: what was to be done before it is done, and a snapshot only makes searches fast.
    """
    if line - newest < EVERY or line % _TRY_AT:
        return
    try:
        rows, unread, number = _with_recent(catalogue, newest_snapshot(catalogue))
        path = f"{SNAPSHOTS}/{snapshot_file(number)}"
        if not write_once(catalogue.storage, path, _bytes(catalogue, rows, unread, number)):
            _log.info("%s exists already", path)
    except Exception as error:  # whatever a storage can do
        _log.warning("No snapshot of %s was written: %s", catalogue.storage.url, error)


def known_names(catalogue: Catalogue) -> set[str] | None:
    """The names that have versions, by the newest snapshot and the journal after it; ``None``
    without a snapshot."""
    known = newest_snapshot(catalogue)
    if not known.number:
        return None
    lines = lines_after(catalogue, known.number)
    names = (line.data.get("name") for line in lines if line.data.get("what") == "publish")
    added = {name for name in names if isinstance(name, str) and wrong_name(name) is None}
    unread = {name for name, _ in known.unread}
    return {row.name for row in known.rows} | unread | added


def merged(
    rows: Iterable[ThinRow], added: Iterable[ThinRow], marks: Mapping[Key, tuple[str, ...]]
) -> list[ThinRow]:
    """Rows with those that were ``added``, and with the ``marks`` that are newer."""
    found = {row.key: row for row in (*rows, *added)}
    for key, words in marks.items():
        if key in found:
            found[key] = replace(found[key], marks=words)
    return list(found.values())


def _with_recent(catalogue: Catalogue, known: Known) -> tuple[list[ThinRow], set[Key], int]:
    more = recent(catalogue, known.number)
    unread = {*known.unread, *more.unread}
    return merged(known.rows, more.rows, more.marks), unread, more.number


def _with_listed(catalogue: Catalogue, rows: list[ThinRow]) -> tuple[list[ThinRow], set[Key]]:
    """The rows, with versions and marks that the journal does not have; and what cannot be read."""
    there = {row.key for row in rows}
    missing: list[Key] = []
    serials: dict[Key, int] = {}
    for path in catalogue.storage.find(ADAPTERS):
        name, found, file = path.removeprefix(f"{ADAPTERS}/").partition("/versions/")
        if found and file.endswith(".json"):
            key = (name, file.removesuffix(".json"))
            if key not in there and is_key(*key):
                missing.append(key)
            continue
        name, found, rest = path.removeprefix(f"{ADAPTERS}/").partition("/marks/")
        version, _, file = rest.partition("/")
        if found and is_key(name, version):
            number = series_number(file)
            if number is not None:
                serials[name, version] = max(serials.get((name, version), 1), number)
    read = read_rows(catalogue, missing)
    return merged(rows, read.rows, read_marks(catalogue, serials)), set(read.unread)


def _bytes(
    catalogue: Catalogue, rows: Iterable[ThinRow], unread: Iterable[Key], number: int
) -> bytes:
    return encode_snapshot(catalogue.id, number, rows, unread)
