"""The rules of a registry: what a promotion to an alias needs, and who sets the next rules.

They bind those who write with adapterdock. Those who read must not trust them: whoever can write to
the storage could start a registry of his own, with rules of his own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where
from ...manifests.language.published_names import wrong_alias
from ...manifests.reading.complaints import first_problem
from ..records.entry import InvalidEntryError, parse_object
from ..records.metrics import parse_requirement
from ..records.series import LIMIT, canonical
from ..signatures.keys import PublicKey, load_public_key, parse_public_key
from ..signatures.trust import Requirement, requirement

FORMAT = 1
EVERY = "*"
"""Among the aliases: each of them."""


class _Part(BaseModel):
    """Frozen and closed: an older reader must not ignore a rule that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Signers(_Part):
    """At least ``threshold`` of these different keys, in PEM."""

    keys: tuple[str, ...] = Field(min_length=1)
    threshold: int = Field(default=1, ge=1)


class Gate(_Part):
    """What a promotion to one alias needs."""

    metrics: tuple[str, ...] = Field(default=(), description="such as accuracy>=0.9")
    licences: tuple[str, ...] | None = Field(default=None, description="one of these")
    signatures: Signers | None = Field(default=None, description="of the version's entry")
    promoters: tuple[str, ...] = Field(default=(), description="one of these keys signs the value")


class Rules(_Part):
    """One set of rules. ``threshold`` of ``keys`` must sign the next one; without keys, nobody."""

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    keys: tuple[str, ...] = ()
    threshold: int = Field(default=1, ge=1)
    aliases: Mapping[str, Gate] = Field(default_factory=dict)

    @property
    def data(self) -> Mapping[str, Any]:
        """What is written: everything that is said, in one spelling."""
        return {**self.model_dump(mode="json", exclude_defaults=True), "format": self.format}

    def gates(self, alias: str) -> list[Gate]:
        """Those that a promotion to this alias must pass."""
        return [self.aliases[name] for name in (EVERY, alias) if name in self.aliases]


class InvalidRulesError(ValueError):
    """The bytes are not rules; the text says why."""


def read_rules(raw: bytes) -> Rules:
    """The rules in these bytes; a ``previous`` is left out. Raises :class:`InvalidRulesError`."""
    try:
        data = parse_object(raw, LIMIT)
        data.pop("previous", None)
        return Rules.model_validate_json(canonical(data))
    except InvalidEntryError as error:
        raise InvalidRulesError(str(error)) from None
    except ValidationError as error:
        raise InvalidRulesError(first_problem(error, "the rules")) from None


def rules_in_file(path: Path) -> Rules:
    """The rules in a person's file: its keys may be paths, and are read here.

    Raises :class:`UsageError` for anything that could not be obeyed later.
    """
    where = Where(file=str(path))
    try:
        with path.open("rb") as file:
            rules = read_rules(file.read(LIMIT + 1))
        for alias in rules.aliases:
            problem = None if alias == EVERY else wrong_alias(alias)
            if problem is not None:
                raise InvalidRulesError(f"aliases.{alias[:80]}: {problem}")
    except OSError as error:
        raise _invalid(error.strerror or "it cannot be read", where) from error
    except InvalidRulesError as error:
        raise _invalid(str(error), where) from error
    folder = path.absolute().parent
    gates = {alias: _with_pem(gate, folder, where) for alias, gate in rules.aliases.items()}
    keys = _pems(rules.keys, folder, where)
    if keys or rules.threshold > 1:
        require(Signers.model_construct(keys=keys, threshold=rules.threshold), where)
    return rules.model_copy(update={"keys": keys, "aliases": gates})


def _with_pem(gate: Gate, folder: Path, where: Where) -> Gate:
    for text in gate.metrics:
        parse_requirement(text)
    signatures = gate.signatures
    if signatures is not None:
        pems = _pems(signatures.keys, folder, where)
        signatures = signatures.model_copy(update={"keys": pems})
        require(signatures, where)
    promoters = _pems(gate.promoters, folder, where)
    return gate.model_copy(update={"signatures": signatures, "promoters": promoters})


def _pems(texts: Iterable[str], folder: Path, where: Where) -> tuple[str, ...]:
    return tuple(load_public_key(text, folder, where).pem for text in texts)


def keys_of(pems: Iterable[str], where: Where) -> list[PublicKey]:
    """The keys in a registry's rules: PEM, never a path. Raises :class:`UsageError`."""
    return [
        parse_public_key(pem.encode(errors="replace"), f"key {number} of the rules", where)
        for number, pem in enumerate(pems, 1)
    ]


def require(signers: Signers, where: Where) -> Requirement:
    """The requirement that these signers are. Raises :class:`UsageError`, and
    :class:`PolicyError` for a threshold that they cannot reach."""
    return requirement(keys_of(signers.keys, where), signers.threshold, where)


def _invalid(reason: str, where: Where) -> UsageError:
    return UsageError(
        codes.RULES_INVALID.finding(f"Invalid rules: {reason}", where, found=reason[:200])
    )
