"""What the policies in force demand of one registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..manifests.findings.errors import PolicyError
from ..manifests.findings.finding import Where
from ..manifests.language.schema import AllowedRegistry, Policy, RequiredSignatures, SignedKind
from ..manifests.language.source import Source
from .catalogue.catalogue import Catalogue, Resolved
from .catalogue.envelope import Kind
from .catalogue.keys import load_public_key
from .catalogue.selector import Selector
from .catalogue.trust import requirement
from .catalogue.trusted import Demand, verify_resolved
from .policy import allowed_registries, check_registry

_KINDS: dict[SignedKind, Kind] = {
    "entries": Kind.ENTRY,
    "aliases": Kind.ALIAS,
    "marks": Kind.MARK,
}


def require_trusted(
    catalogue: Catalogue,
    place: Source,
    resolved: Resolved,
    policies: Sequence[Policy],
    directory: Path,
    where: Where,
    selector: Selector | None = None,
) -> tuple[str, ...]:
    """The ids of the keys that signed what was resolved, as the policies demand.

    Args:
        catalogue: The registry.
        place: Where it is, as the manifest or the user says.
        resolved: What was selected in it.
        policies: Those in force; each must be satisfied.
        directory: What a relative ``place`` is relative to.
        where: The place in the manifest.
        selector: What was selected by.

    Raises:
        PolicyError: A policy does not allow the registry, or signatures are missing.
        UsageError: A key cannot be read or is weak; the libraries are missing.
        SourceError, IntegrityError: The signatures cannot be read.
    """
    forbidden = check_registry(place, catalogue.id, policies, directory, where)
    if forbidden:
        raise PolicyError(*forbidden)
    demands = demands_of(policies, place, catalogue.id, directory, where)
    found = verify_resolved(catalogue, resolved, demands, selector)
    if found.findings:
        raise PolicyError(*found.findings)
    return found.keys


def demands_of(
    policies: Iterable[Policy], place: Source, id_: str, directory: Path, where: Where
) -> tuple[Demand, ...]:
    """What these policies demand of the registry at ``place`` with this id. Reads the keys.

    Raises:
        UsageError: A key cannot be read or is weak; the libraries are missing.
        PolicyError: A threshold that the keys cannot reach.
    """
    rows: list[RequiredSignatures | AllowedRegistry] = []
    for policy in policies:
        if policy.require_signature is not None:
            rows.append(policy.require_signature)
        rows += [
            one
            for one in allowed_registries(policy, place, id_, directory)
            if one.keys or one.threshold > 1
        ]
    return tuple(_demand(row, directory, where) for row in rows)


def _demand(row: RequiredSignatures | AllowedRegistry, directory: Path, where: Where) -> Demand:
    keys = [load_public_key(text, directory, where) for text in row.keys]
    kinds = frozenset(_KINDS[kind] for kind in row.of)
    return Demand(kinds, requirement(keys, row.threshold, where))
