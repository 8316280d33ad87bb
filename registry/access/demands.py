"""What the policies in force demand of one registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...manifests.findings import lock as lock_codes
from ...manifests.findings.errors import IntegrityError, PolicyError, SourceError, StoreError
from ...manifests.findings.finding import Where
from ...manifests.language.schema import AllowedRegistry, Policy, RequiredSignatures, SignedKind
from ...manifests.language.selector import Selector
from ...manifests.language.source import Source
from ...manifests.lockfile import LockedAdapter
from ..catalogue.catalogue import Catalogue, Resolved, Seen
from ..catalogue.trusted import Demand, verify_resolved
from ..records.entry import Entry
from ..signatures.envelope import Kind
from ..signatures.keys import load_public_key
from ..signatures.trust import requirement
from .policy import allowed_registries, check_registry
from .proofs import keeping, kept_storage

if TYPE_CHECKING:
    from ..store.store import Store

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
    *,
    pinned: bool = False,
    store: Store | None = None,
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
        pinned: Whether a lock chose the version: then marks did not.
        store: Where the signatures are kept for use without a network.

    Raises:
        PolicyError: A policy does not allow the registry, or signatures are missing.
        UsageError: A key cannot be read or is weak; the libraries are missing.
        SourceError, IntegrityError: The signatures cannot be read.
    """
    demands = _require_allowed(policies, place, catalogue.id, directory, where, pinned)
    if demands and store is not None:
        catalogue = keeping(catalogue, resolved, store)
    found = verify_resolved(catalogue, resolved, demands, selector)
    if found.findings:
        raise PolicyError(*found.findings)
    return found.keys


def is_proved(
    place: Source,
    pin: LockedAdapter,
    name: str,
    policies: Sequence[Policy],
    directory: Path,
    where: Where,
    selector: Selector,
    store: Store,
) -> bool:
    """Whether what the policies demand of a pinned adapter can be verified without its registry:
    they demand nothing, or the signatures that were kept are enough.

    Raises:
        PolicyError: A policy does not allow the registry.
        UsageError: A key cannot be read or is weak; the libraries are missing.
    """
    locked = pin.registry
    if locked is None or not locked.id.isalnum():
        return False
    demands = _require_allowed(policies, place, locked.id, directory, where, pinned=True)
    if not demands:
        return True
    kept = Catalogue(kept_storage(locked.id, store), locked.id)
    try:
        resolved = kept.entry(name, locked.version, locked.entry)
        require_files_of(resolved.entry, pin, where)
        alias = locked.alias
        seen = None if alias is None else Seen(alias.serial, alias.sha256)
        return not verify_resolved(kept, replace(resolved, alias=seen), demands, selector).findings
    except (SourceError, IntegrityError, StoreError):
        return False


def require_files_of(entry: Entry, pin: LockedAdapter, where: Where) -> None:
    """Raise :class:`IntegrityError` where a lock pins other files than the entry has."""
    published = {file.path: file.sha256 for file in entry.files}
    for path, file in pin.files.items():
        if published.get(path) != file.sha256:
            raise IntegrityError(
                lock_codes.CHANGED_UNDER_LOCK.finding(
                    f"The lock pins another {path} than {entry.name}@{entry.version} has",
                    where,
                    found=file.sha256,
                    expected=published.get(path, "no such file"),
                    hint="Lock the adapter again with `adapterdock lock --upgrade NAME`.",
                )
            )


def _require_allowed(
    policies: Sequence[Policy],
    place: Source,
    id_: str,
    directory: Path,
    where: Where,
    pinned: bool,
) -> list[Demand]:
    """What is demanded of a registry that every policy allows."""
    forbidden = check_registry(place, id_, policies, directory, where)
    if forbidden:
        raise PolicyError(*forbidden)
    found = demands_of(policies, place, id_, directory, where)
    decided = (replace(one, kinds=one.kinds - ({Kind.MARK} if pinned else set())) for one in found)
    return [one for one in decided if one.kinds]


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
