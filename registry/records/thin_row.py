"""A thin row: what a search needs of one version. Twelve columns of its entry and its last mark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...manifests.language.schema import Fingerprint
from .entry import Entry
from .marks import Mark

HIGHEST_RANK = 2**31 - 1
LONGEST_DESCRIPTION = 300
"""Characters of a description that are searched."""


@dataclass(frozen=True)
class ThinRow:
    """One version. ``entry`` is the digest of its entry's bytes."""

    name: str
    version: str
    entry: str
    created: str
    method: str
    rank: int
    licence: str | None
    owner: str | None
    tags: tuple[str, ...]
    description: str | None
    marks: tuple[str, ...]
    """``yanked`` and ``deprecated``, as far as they hold."""
    base: str
    """Its names and fingerprints as JSON, see :func:`base_text`. Many rows have the same."""

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.version


COLUMNS = tuple(field.name for field in fields(ThinRow))


def row_of(entry: Entry, digest: str, marks: tuple[str, ...] = ()) -> ThinRow:
    """The row of an entry, whose bytes have this digest."""
    description = entry.description
    licence, owner = plain(entry.licence), plain(entry.owner)
    return ThinRow(
        name=entry.name,
        version=entry.version,
        entry=digest,
        created=plain(entry.created) or "",
        method=plain(entry.method.peft_type) or "",
        rank=min(entry.method.rank, HIGHEST_RANK),
        licence=licence,
        owner=owner,
        tags=tuple(plain(tag) or "" for tag in entry.tags),
        description=None if description is None else plain(description[:LONGEST_DESCRIPTION]),
        marks=marks,
        base=base_text(entry),
    )


def base_text(entry: Entry) -> str:
    """The names and fingerprints of an entry's base, in one spelling."""
    base = entry.base
    data = {
        "source": base.source,
        "aliases": list(base.aliases),
        "fingerprints": [f.model_dump(mode="json", exclude_none=True) for f in base.fingerprints],
    }
    return plain(json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)) or ""


def plain(text: str | None) -> str | None:
    """``text`` without halves of characters, which JSON can write and SQLite does not take."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def base_names(text: str) -> list[str]:
    """All names of a base, from its text in a row."""
    data = _object(text)
    names = [data.get("source"), *_list(data.get("aliases"))]
    return [name for name in names if isinstance(name, str)]


def base_fingerprints(text: str) -> list[Fingerprint]:
    """The fingerprints of a base, from its text in a row; those that this version cannot read are
    left out."""
    found: list[Fingerprint] = []
    for data in _list(_object(text).get("fingerprints")):
        try:
            found.append(Fingerprint.model_validate(data))
        except ValueError:  # pydantic's ValidationError is one
            continue
    return found


def mark_words(mark: Mark | None) -> tuple[str, ...]:
    """What a mark says, as a row keeps it."""
    if mark is None:
        return ()
    return tuple(word for word in ("yanked", "deprecated") if getattr(mark, word))


def _object(text: str) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
