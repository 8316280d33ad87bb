"""Whether what a selector led to is signed as the policies in force demand.

Nothing here trusts the registry: the keys come with the demands, and what cannot be checked is an
error. A lock changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.finding import Finding, Severity
from ...manifests.language.selector import Selector
from ..signatures.envelope import Kind
from ..signatures.signatures import read_signatures
from ..signatures.signing import Signable, entry_of, value_of
from ..signatures.trust import Requirement, Verified, verify
from ..storages.layout import alias_folder, marks_folder
from .catalogue import Catalogue, Listing, Resolved


@dataclass(frozen=True)
class Demand:
    """What one policy demands: files of these kinds are signed by enough of its keys."""

    kinds: frozenset[Kind]
    requirement: Requirement


def verify_resolved(
    catalogue: Catalogue,
    resolved: Resolved,
    demands: Sequence[Demand],
    selector: Selector | None = None,
) -> Verified:
    """Verify the signatures of what was resolved. Without demands, nothing is read.

    Args:
        catalogue: The registry.
        resolved: The entry, and the value of the alias that led to it.
        demands: Of all policies in force; each must be satisfied.
        selector: What led to it. The marks of the versions that a range skips count too: by
            them, whoever can write would choose the version.

    Returns:
        The ids of the keys that signed, and what is missing. Signatures that do not count are
        among the findings only where some are missing.

    Raises:
        UsageError: The libraries are missing.
        SourceError, IntegrityError: The signatures or marks cannot be read.
    """
    kinds = frozenset(kind for demand in demands for kind in demand.kinds)
    if not kinds:
        return Verified((), ())
    listing = catalogue.listing(resolved.entry.name)
    keys: set[str] = set()
    findings: list[Finding] = []
    if Kind.ALIAS in kinds and selector is not None and selector.alias is not None:
        findings += _check_alias(catalogue, resolved, selector.alias)
    for signable in _signables(catalogue, listing, resolved, selector, kinds):
        required = [one.requirement for one in demands if signable.file.kind in one.kinds]
        envelopes = read_signatures(catalogue.storage, signable.folder, listing.paths)
        found = verify(signable.file, envelopes, required)
        keys.update(found.keys)
        if any(one.severity is Severity.ERROR for one in found.findings):
            findings.extend(found.findings)
    return Verified(tuple(sorted(keys)), tuple(findings))


def verify_mark(
    catalogue: Catalogue, listing: Listing, version: str, demands: Sequence[Demand]
) -> Verified:
    """Verify the signatures of the last mark of a version, where marks are demanded to have some.
    ``listing`` is of the name. Raises as :func:`verify_resolved` does."""
    required = [one.requirement for one in demands if Kind.MARK in one.kinds]
    value = catalogue.mark_value(listing, version) if required else None
    if value is None:
        return Verified((), ())
    folder = marks_folder(listing.name, version)
    signable = value_of(catalogue.id, Kind.MARK, listing.name, folder, value.number, value.digest)
    envelopes = read_signatures(catalogue.storage, signable.folder, listing.paths)
    return verify(signable.file, envelopes, required)


def _check_alias(catalogue: Catalogue, resolved: Resolved, alias: str) -> list[Finding]:
    """A finding unless the value of the alias is known, and selects what was resolved. A lock that
    somebody edited could name a signed value and another version."""
    name, seen = resolved.entry.name, resolved.alias
    if seen is not None:
        value = catalogue.alias_value(name, alias, seen.serial)
        if value.digest == seen.digest and value.data.get("entry") == resolved.digest:
            return []
    return [
        codes.SIGNATURES_MISSING.finding(
            f"No signed value of {name}@{alias} selects {resolved.entry.version}",
            catalogue.where,
            found="no value" if seen is None else f"value {seen.serial}",
            expected=resolved.digest,
            hint="Lock the adapter again with `adapterdock lock --upgrade NAME`.",
        )
    ]


def _signables(
    catalogue: Catalogue,
    listing: Listing,
    resolved: Resolved,
    selector: Selector | None,
    kinds: frozenset[Kind],
) -> Iterable[Signable]:
    name, version = resolved.entry.name, resolved.entry.version
    if Kind.ENTRY in kinds:
        yield entry_of(catalogue.id, name, version, resolved.digest)
    seen = resolved.alias
    if Kind.ALIAS in kinds and seen is not None:
        assert selector is not None and selector.alias is not None
        folder = alias_folder(name, selector.alias)
        yield value_of(catalogue.id, Kind.ALIAS, name, folder, seen.serial, seen.digest)
    for marked in _marked(listing, version, selector) if Kind.MARK in kinds else ():
        value = catalogue.mark_value(listing, marked)
        if value is not None:
            folder = marks_folder(name, marked)
            yield value_of(catalogue.id, Kind.MARK, name, folder, value.number, value.digest)


def _marked(listing: Listing, version: str, selector: Selector | None) -> list[str]:
    """The versions whose marks decided: the one that was selected, and what a range skipped."""
    if selector is None or selector.range is None:
        return [version]
    inside = [str(one) for one in reversed(listing.versions) if one in selector.range]
    return [*inside[: inside.index(version)], version] if version in inside else [version]
