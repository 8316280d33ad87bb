"""A snapshot: thin rows of all versions in one compressed file, so that a search need not list.

::

    {"bases":1,"columns":[...],"format":1,"journal":40,"registry":"...","rows":2}
    {"aliases":[...],"fingerprints":[...],"source":"hf://org/base"}
    ["refunds","1.0.0",...,0]
    ["refunds","1.1.0",...,0]

First the bases, then the rows, whose last column is the number of their base. ``journal`` is the
number of the last line of the journal that is in it. The same rows give the same bytes. Nothing is
decided by a snapshot: it can only hide or add what a search shows. ``unread`` of the first line, if
there is one, lists the name and the version of entries that its writer was too old to read.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .series import DIGITS
from .thin_row import COLUMNS, HIGHEST_RANK, ThinRow

FORMAT = 1
LIMIT = 1 << 28
"""Compressed bytes of a snapshot."""
MOST_UNREAD = 10_000
"""Entries that its writer could not read, and a snapshot lists."""
_UNPACKED = 1 << 32
_LINE = 4 << 20
_LEVEL = 6
_FILE = re.compile(rf"([0-9]{{{DIGITS}}})\.jsonl\.gz\Z")

_BASE = COLUMNS.index("base")
_RANK = COLUMNS.index("rank")
_LISTS = (COLUMNS.index("tags"), COLUMNS.index("marks"))
_NONE = type(None)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "rank": (int,),
    "base": (int,),
    "licence": (str, _NONE),
    "owner": (str, _NONE),
    "description": (str, _NONE),
    "tags": (list,),
    "marks": (list,),
}


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot has: rows, and by name and version the entries that its writer was too old to
    read."""

    rows: tuple[ThinRow, ...]
    unread: tuple[tuple[str, str], ...] = ()


class InvalidSnapshotError(ValueError):
    """The bytes are not a snapshot that this version can use; the text says why."""


def snapshot_file(number: int) -> str:
    """The name of the snapshot of this journal number."""
    return f"{number:0{DIGITS}}.jsonl.gz"


def snapshot_number(path: str) -> int | None:
    """The journal number in the path of a snapshot; ``None`` for another file."""
    match = _FILE.match(path.rpartition("/")[2])
    return None if match is None else int(match[1])


def encode_snapshot(
    registry: str,
    number: int,
    rows: Iterable[ThinRow],
    unread: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The bytes of the snapshot of these rows, in one order and one spelling."""
    chosen = sorted(rows, key=lambda row: row.key)
    bases = {text: n for n, text in enumerate(sorted({row.base for row in chosen}))}
    head: dict[str, Any] = {
        "format": FORMAT,
        "registry": registry,
        "journal": number,
        "columns": COLUMNS,
        "bases": len(bases),
        "rows": len(chosen),
    }
    if listed := sorted(unread)[:MOST_UNREAD]:
        head["unread"] = listed
    lines = [_line(head), *bases]
    lines += [_line([getattr(r, c) for c in COLUMNS[:_BASE]] + [bases[r.base]]) for r in chosen]
    packed = io.BytesIO()
    # no name and no time of its own: the same rows are the same bytes
    with gzip.GzipFile("", "wb", _LEVEL, packed, mtime=0) as file:
        file.write("\n".join([*lines, ""]).encode())
    return packed.getvalue()


def decode_snapshot(raw: bytes, registry: str, number: int) -> Snapshot:
    """What is in the bytes of the snapshot of this registry and journal number.

    Raises :class:`InvalidSnapshotError` for anything else, and for a damaged one.
    """
    if len(raw) > LIMIT:
        raise InvalidSnapshotError(f"it has more than {LIMIT} bytes")
    try:
        return _decode(_lines(raw), registry, number)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidSnapshotError(f"it is damaged: {error}") from None
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise InvalidSnapshotError(str(error)[:200]) from None


def _decode(lines: Iterator[bytes], registry: str, number: int) -> Snapshot:
    head: Any = json.loads(next(lines, b""))
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError("its format is unknown")
    if (head.get("registry"), head.get("journal")) != (registry, number):
        raise ValueError("it is of another registry or journal number")
    places = _places(head.get("columns"))
    count, expected = head.get("bases"), head.get("rows")
    if type(count) is not int or type(expected) is not int:
        raise ValueError("it does not say how many rows it has")
    bases = [next(lines, b"").decode().rstrip("\n") for _ in range(min(count, expected))]
    rows = [_row(_whole(line), places, bases) for line in lines]
    if len(rows) != expected:
        raise ValueError(f"it has {len(rows)} rows instead of {expected}")
    return Snapshot(tuple(rows), _unread(head.get("unread", [])))


def _unread(keys: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(keys, list) or len(keys) > MOST_UNREAD:
        raise ValueError("unread is not what it should be")
    found: list[tuple[str, str]] = []
    for key in keys:
        if not isinstance(key, list) or len(key) != 2 or not all(isinstance(k, str) for k in key):
            raise ValueError("unread is not what it should be")
        found.append((key[0], key[1]))
    return tuple(found)


def _whole(line: bytes) -> object:
    """The data of a line, without halves of characters."""
    data = json.loads(line)
    if b"\\ud" in line or b"\\uD" in line:
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _places(columns: object) -> list[int]:
    """Where each of our columns is in a row. A later version may have written more."""
    if not isinstance(columns, list) or not all(name in columns for name in COLUMNS):
        raise ValueError("columns are missing")
    return [columns.index(name) for name in COLUMNS]


def _row(values: Any, places: Sequence[int], bases: Sequence[str]) -> ThinRow:
    if not isinstance(values, list) or len(values) <= max(places):
        raise ValueError("a row has too few columns")
    found = [values[place] for place in places]
    for name, value in zip(COLUMNS, found, strict=True):
        if type(value) not in _TYPES.get(name, (str,)):
            raise ValueError(f"{name} is not what it should be")
    for place in _LISTS:
        if not all(isinstance(word, str) for word in found[place]):
            raise ValueError(f"{COLUMNS[place]} are not texts")
        found[place] = tuple(found[place])
    if not 0 <= found[_RANK] <= HIGHEST_RANK:
        raise ValueError("rank is not what it should be")
    if not 0 <= found[_BASE] < len(bases):
        raise ValueError("a row names a base that is not there")
    found[_BASE] = bases[found[_BASE]]
    return ThinRow(*found)


def _lines(raw: bytes) -> Iterator[bytes]:
    left = _UNPACKED
    with io.BufferedReader(gzip.GzipFile(fileobj=io.BytesIO(raw)), 1 << 20) as file:  # pyright: ignore[reportArgumentType]
        while line := file.readline(_LINE):
            left -= len(line)
            if left < 0 or not line.endswith(b"\n"):
                raise ValueError("a line breaks off, or is too long")
            yield line


def _line(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
