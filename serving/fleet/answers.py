"""What replicas answer: as frozen data, from bytes that may say anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...manifests.language.schema import Digest
from ...manifests.reading.complaints import expected_of
from ...registry.records.entry import InvalidEntryError, parse_object
from .address import Replica

STATUS_SCHEMA = "adapterdock.status/1"
STATUS_PATH = "/v1/adapterdock/status"
MODELS_PATH = "/v1/models"
ANSWER_BYTES = 16 << 20
"""Of one answer: ten thousand adapters need 4 MiB."""
_SHOWN = 300

Hide = Callable[[str], str]
"""Text without the key that the replica was asked with."""


class BadAnswerError(Exception):
    """The bytes are not the answer that was asked for; the text says why."""


@dataclass(frozen=True)
class StatusAnswer:
    """Of our own status route.

    Args:
        engine: Name and version; empty where no target is named.
        state: ``starting``, ``serving`` or ``behind``.
        base: The source of the base.
        fingerprint: Of the base: levels and their digests, or one text.
        adapters: By name, the digest of what is served.
        wanted: By name, the digest of what the replica is to serve.
        checked: When it last looked at its manifest.
        problems: Why it does not serve what it is to serve.
        followed: Adapters whose alias it follows beyond the lock; by name, the digest in its lock.
    """

    engine: str
    state: str
    adapters: Mapping[str, str]
    wanted: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    fingerprint: str | Mapping[str, Any] | None = None
    checked: str | None = None
    problems: tuple[str, ...] = ()
    followed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelsAnswer:
    """Of ``/v1/models``.

    Args:
        roots: By name, the path that the model was loaded from, if the server says it.
        bases: Names that have no parent.
    """

    roots: Mapping[str, str | None]
    bases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class NoAnswer:
    """A replica that could not be asked, or whose answer cannot be used."""

    reason: str
    hint: str | None = None


@dataclass(frozen=True)
class Asked:
    """One replica and its answer."""

    replica: Replica
    answer: StatusAnswer | ModelsAnswer | NoAnswer


class _Part(BaseModel):
    """Strict; fields of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Engine(_Part):
    name: str | None = None
    version: str | None = None


class _Base(_Part):
    model: str | None = None
    fingerprint: str | dict[str, Any] | None = None


class _Adapter(_Part):
    digest: Digest


class _Followed(_Part):
    locked: Digest


class _Finding(_Part):
    code: str
    message: str


class _Status(_Part):
    engine: _Engine
    base: _Base
    state: str
    adapters: dict[str, _Adapter]
    wanted: dict[str, Digest] = Field(default_factory=dict)
    checked: str | None = None
    findings: list[_Finding] = Field(default_factory=list)
    followed: dict[str, _Followed] = Field(default_factory=dict)


class _Model(_Part):
    id: str
    root: str | None = None
    parent: str | None = None


class _Models(_Part):
    data: list[_Model]


class _Choice(_Part):
    text: str


class _Completion(_Part):
    choices: Annotated[list[_Choice], Field(min_length=1)]


P = TypeVar("P", bound=_Part)


def read_status(raw: bytes, hide: Hide = str) -> StatusAnswer:
    """Raises :class:`BadAnswerError`."""
    data = _object(raw)
    if data.get("schema") != STATUS_SCHEMA:
        schema = data.get("schema")
        said = hide(schema[:60]) if isinstance(schema, str) else "no schema"
        raise BadAnswerError(f"its status has the schema {said!r}, expected {STATUS_SCHEMA!r}")
    status = _conforming(_Status, data, "its status", hide)
    fingerprint = status.base.fingerprint
    return StatusAnswer(
        engine=_short(f"{status.engine.name or ''} {status.engine.version or ''}".strip(), hide),
        state=_short(status.state, hide),
        adapters={hide(name): one.digest for name, one in status.adapters.items()},
        wanted={hide(name): digest for name, digest in status.wanted.items()},
        base=None if status.base.model is None else _short(status.base.model, hide),
        fingerprint=_short(fingerprint, hide) if isinstance(fingerprint, str) else fingerprint,
        checked=None if status.checked is None else _short(status.checked, hide),
        problems=tuple(_short(f"{f.code}: {f.message}", hide) for f in status.findings),
        followed={hide(name): one.locked for name, one in status.followed.items()},
    )


def read_models(raw: bytes, hide: Hide = str) -> ModelsAnswer:
    """Raises :class:`BadAnswerError`."""
    models = _conforming(_Models, _object(raw), "its list of models", hide).data
    if len({model.id for model in models}) != len(models):
        raise BadAnswerError("its list of models has a name twice")
    return ModelsAnswer(
        {hide(model.id): None if model.root is None else hide(model.root) for model in models},
        frozenset(hide(model.id) for model in models if model.parent is None),
    )


def read_completion(raw: bytes, hide: Hide = str) -> str:
    """The text of the first choice. Raises :class:`BadAnswerError`."""
    return _conforming(_Completion, _object(raw), "its completion", hide).choices[0].text


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw, ANSWER_BYTES)
    except InvalidEntryError as error:
        raise BadAnswerError(f"its answer cannot be read: {_reason(error)}") from None


def _reason(error: InvalidEntryError) -> str:
    text = str(error)
    return text if text.isprintable() else ascii(text)


def _conforming(kind: type[P], data: dict[str, Any], what: str, hide: Hide) -> P:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = _short(".".join(map(str, first["loc"])), hide)  # hidden before it is cut
        if first["type"] == "missing":
            raise BadAnswerError(f"{what} is invalid: {place} is missing") from None
        expected = expected_of(first) or _short(first["msg"], hide)
        raise BadAnswerError(f"{what} is invalid: {place}: expected {expected}") from None


def _short(text: str, hide: Hide) -> str:
    text = hide(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
