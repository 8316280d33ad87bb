"""What the journal adds to rows that are known up to one of its lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.language.published_names import wrong_name
from ...manifests.language.versions import parse_version
from ..files.digests import sha256_bytes
from ..files.pool import each
from ..records.entry import LIMIT, InvalidEntryError, NewerEntryError, read_entry
from ..records.journal import head
from ..records.marks import ACTIONS, read_mark, text_or_none
from ..records.series import BrokenSeriesError, Value, read_value
from ..records.thin_row import ThinRow, mark_words, row_of
from ..storages.layout import JOURNAL, entry_file, marks_folder
from ..storages.local_storage import LocalStorage
from ..storages.storage import Storage
from .catalogue import Catalogue

Key = tuple[str, str]
"""A name and a version."""

WORKERS = 16
"""Requests at once to a storage that is not on this machine."""


@dataclass(frozen=True)
class Rows:
    """Rows of versions, without marks; ``unread`` are versions that only a newer adapterdock can
    read."""

    rows: tuple[ThinRow, ...] = ()
    unread: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Recent:
    """What was published and marked up to line ``number`` of the journal, whose digest is
    ``digest``."""

    number: int
    digest: str | None = None
    rows: tuple[ThinRow, ...] = ()
    marks: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    """What marked versions are marked as now; those of ``rows`` too."""
    follows: str | None = None
    """The digest of the line that was known before, as the journal has it now."""
    unread: tuple[Key, ...] = ()
    """Versions that only a newer adapterdock can read."""


def recent(catalogue: Catalogue, after: int = 0, last: Value | None = None) -> Recent:
    """What the journal says after line ``after``.

    Args:
        catalogue: The registry.
        after: A line that the journal has, or 0.
        last: The journal's last line, if that was read already.

    Raises:
        IntegrityError: A line is not one.
    """
    last = last or last_line(catalogue, after)
    lines = lines_after(catalogue, after, last)
    if not lines:
        digest = last.digest if last is not None and last.number == after else None
        return Recent(after, digest, follows=digest)
    published: dict[Key, None] = {}
    marked: dict[Key, int] = {}
    for line in lines:
        what, key = line.data.get("what"), _key(line.data)
        if key is None:
            continue
        if what == "publish":
            published[key] = None
        elif what in ACTIONS:
            marked[key] = max(marked.get(key, 1), _serial(line.data))
    marks = read_marks(catalogue, marked)
    read = read_rows(catalogue, published)
    rows = tuple(replace(row, marks=marks.get(row.key, ())) for row in read.rows)
    follows = text_or_none(lines[0].data.get("previous"))
    return Recent(lines[-1].number, lines[-1].digest, rows, marks, follows, read.unread)


def last_line(catalogue: Catalogue, known: int = 0) -> Value | None:
    """The journal's last line, found from a ``known`` one on."""
    try:
        return head(catalogue.storage, known)
    except BrokenSeriesError as error:
        raise _broken(catalogue, error) from error


def lines_after(catalogue: Catalogue, after: int, last: Value | None = None) -> list[Value]:
    """The journal's lines after this one."""
    storage = catalogue.storage
    last = last or last_line(catalogue, after)
    if last is None or last.number <= after:
        return []
    numbers = range(after + 1, last.number)
    try:
        found = each(lambda n: read_value(storage, JOURNAL, n), numbers, workers_for(storage))
    except (BrokenSeriesError, FileNotFoundError) as error:
        raise _broken(catalogue, error) from error
    return [*found, last]


def read_rows(catalogue: Catalogue, keys: Iterable[Key]) -> Rows:
    """The rows of these versions, without marks. Versions whose entry is missing or damaged are
    left out."""

    def one(key: Key) -> ThinRow | Key | None:
        try:
            raw = catalogue.storage.read(entry_file(*key), LIMIT + 1)
            return row_of(read_entry(raw, *key), sha256_bytes(raw))
        except NewerEntryError:
            return key
        except (FileNotFoundError, InvalidEntryError):
            return None

    found = each(one, list(keys), workers_for(catalogue.storage))
    return Rows(
        tuple(one for one in found if isinstance(one, ThinRow)),
        tuple(one for one in found if isinstance(one, tuple)),
    )


def read_marks(catalogue: Catalogue, serials: Mapping[Key, int]) -> dict[Key, tuple[str, ...]]:
    """The last mark of each of these versions, which has at least this serial."""

    def one(key: Key) -> tuple[str, ...]:
        folder, number = marks_folder(*key), serials[key]
        last: Value | None = None
        try:
            while True:  # the lines of two writers may be in another order than their marks
                last = read_value(catalogue.storage, folder, number)
                number += 1
        except FileNotFoundError:
            return () if last is None else mark_words(read_mark(folder, last))
        except (BrokenSeriesError, IntegrityError):
            return ()

    keys = list(serials)
    return dict(zip(keys, each(one, keys, workers_for(catalogue.storage)), strict=True))


def workers_for(storage: Storage) -> int:
    """How many requests at once pay off."""
    return 1 if isinstance(storage, LocalStorage) else WORKERS


def _broken(catalogue: Catalogue, error: Exception) -> IntegrityError:
    return IntegrityError(codes.HISTORY_BROKEN.finding(str(error), catalogue.where))


def is_key(name: object, version: object) -> bool:
    """Whether these, from somebody's file, are the name and the version of an adapter."""
    if not isinstance(name, str) or not isinstance(version, str):
        return False
    return wrong_name(name) is None and parse_version(version) is not None


def _key(data: Mapping[str, object]) -> Key | None:
    name, version = data.get("name"), data.get("version")
    return (str(name), str(version)) if is_key(name, version) else None


def _serial(data: Mapping[str, object]) -> int:
    serial = data.get("serial")
    return serial if type(serial) is int and serial > 0 else 1
