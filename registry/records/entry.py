"""An entry: all that a registry says of one version of one adapter. Immutable, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...manifests.language.schema import Digest, Fingerprint
from ...manifests.reading.complaints import first_problem

FORMAT = 1
LIMIT = 1 << 20
"""Bytes of an entry."""
DEPTH = 32
"""Levels of mappings and lists in an entry."""

Role = Literal["weights", "config", "tokenizer", "template", "card", "other"]


class InvalidEntryError(ValueError):
    """The bytes are not an entry that this version can use; the text says why."""


class NewerEntryError(InvalidEntryError):
    """The entry was written for a newer version."""


class _Part(BaseModel):
    """Frozen. Fields that this version does not know are kept, unless ``critical`` names them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class EntryFile(_Part):
    """One file, whose content is the blob of its digest."""

    path: str
    size: int = Field(ge=0)
    sha256: Digest
    role: Role


class EntryMethod(_Part):
    """What the adapter does to its base."""

    peft_type: str
    rank: int = Field(ge=0, description="the largest of any module")
    lowest_rank: int = Field(ge=0)
    alpha: float | None = None
    rslora: bool = False
    dora: bool = False
    dtype: str = Field(description="of the stored tensors: F32, BF16, ...")
    prompt_tokens: int | None = None
    targets: tuple[str, ...] = Field(default=(), description="last names of the adapted modules")
    replaced: Mapping[str, int] = Field(
        default_factory=dict, description="replaced modules, and bytes of each"
    )
    trained_tokens: int = Field(default=0, ge=0)
    parameters: int = Field(ge=0, description="number of trained values")
    peft_version: str | None = None


class EntryBase(_Part):
    """The base that the adapter was validated against."""

    source: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = Field(default=(), description="of every base that fits")
    quantisation: str | None = Field(default=None, description="of the base in training")
    licence: str | None = None
    gated: bool | None = None


class Provenance(_Part):
    """Where the adapter comes from, as its publisher says."""

    data: tuple[str, ...] = ()
    code: str | None = Field(default=None, description="commit of the training code")
    date: str | None = None
    parents: tuple[str, ...] = Field(
        default=(), description="adapters that it was trained or composed from"
    )


class Entry(_Part):
    """One published version. ``digest`` is the lock's: of the files that loading reads;
    ``folder`` is of all files."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    critical: tuple[str, ...] = Field(default=(), description="fields that a reader must know")
    name: str
    version: str
    created: str = Field(description="UTC, ISO 8601")
    digest: Digest
    folder: Digest
    files: tuple[EntryFile, ...] = Field(min_length=1)
    method: EntryMethod
    base: EntryBase
    licence: str | None = None
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = Field(default_factory=dict)
    provenance: Provenance = Provenance()


def read_entry(raw: bytes, name: str, version: str) -> Entry:
    """The entry in these bytes, of this name and version.

    Raises :class:`InvalidEntryError` for anything else: more than :data:`LIMIT` bytes, deeper than
    :data:`DEPTH`, repeated keys, another name or version; and :class:`NewerEntryError` for a newer
    format, or a critical field that is unknown.
    """
    data = parse_object(raw)
    newer = _newer(data)
    if newer is not None:
        raise NewerEntryError(newer)
    try:
        entry = Entry.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidEntryError(first_problem(error, "the entry")) from None
    if (entry.name, entry.version) != (name, version):
        raise InvalidEntryError(f"it is of {data['name']}@{data['version']}"[:300])
    return entry


def _newer(data: Mapping[str, Any]) -> str | None:
    """Why only a newer version can use this entry."""
    number, critical = data.get("format"), data.get("critical")
    if type(number) is int and number > FORMAT:
        return f"its format, {number}, is newer than {FORMAT}"[:200]
    fields = critical if isinstance(critical, list) else []
    unknown = [f for f in fields if isinstance(f, str) and f not in Entry.model_fields]
    return f"it needs a reader that knows {', '.join(unknown)[:200]}" if unknown else None


def parse_object(raw: bytes, limit: int = LIMIT) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no half of a surrogate pair, no repeated key, no number that
    is not finite, at most :data:`DEPTH` deep and ``limit`` bytes long. Raises
    :class:`InvalidEntryError`."""
    if len(raw) > limit:
        raise InvalidEntryError(f"it has more than {limit} bytes")
    try:
        data = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if b"\\u" in raw:  # an escaped lone surrogate is not text (a UnicodeError, a ValueError)
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidEntryError(f"it is nested more than {DEPTH} deep") from None
    except ValueError as error:
        raise InvalidEntryError(f"it is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise InvalidEntryError("it is not a JSON object")
    if not _is_shallow(data):
        raise InvalidEntryError(f"it is nested more than {DEPTH} deep")
    return data


def _is_shallow(data: object) -> bool:
    level = [data]
    for _ in range(DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
