"""Which adapters of a lock have something newer where they come from. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from semver import Version

from ..manifests.findings import lock as lock_codes
from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError, LockError, SourceError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.versions import parse_version
from ..manifests.lockfile import Lock, LockedAdapter
from ..manifests.manifest import ManifestFile
from .access.access import Access, check_place, open_adapter_folder, opening_of
from .access.open_registries import OpenRegistry
from .access.published import name_in_registry, open_published, open_registry_of, selector_of
from .files.pool import each
from .locks.project import ManifestSource, lock_of, open_manifest, policies_in_force
from .locks.state import kept, lock_name

_WORKERS = 8


@dataclass(frozen=True)
class Standing:
    """One adapter: what the lock pins, and what there is now.

    Attributes:
        adapter: Its name in the manifest.
        source: As declared.
        locked: The version (or commit, or digest) that the lock pins.
        selected: What the source selects now; ``None`` where it selects nothing.
        newest: In a registry, the highest version that is not yanked. Prereleases count only if
            one is locked.
        alias: In a registry, ``PROD`` and its values: ``"prod 3 -> 4"``, where the alias moved.
    """

    adapter: str
    source: str
    locked: str
    selected: str | None = None
    newest: str | None = None
    alias: str | None = None

    @property
    def outdated(self) -> bool:
        """Whether there is something newer."""
        if self.alias is not None:
            return True
        before = parse_version(self.locked)
        if before is None:  # a commit or a digest has no order: another one is the newer one
            return self.selected not in (None, self.locked)
        found = (parse_version(text) for text in (self.selected, self.newest) if text is not None)
        return any(version is not None and version > before for version in found)


@dataclass(frozen=True)
class Outdated:
    """All adapters that were compared, and what kept others from being."""

    standings: tuple[Standing, ...]
    findings: tuple[Finding, ...] = ()
    errors: tuple[AdapterdockError, ...] = ()

    @property
    def any(self) -> bool:
        return any(one.outdated for one in self.standings)


def outdated(
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Outdated:
    """Compare what a lock pins with what its sources have now.

    Adapters in registries, and those at a branch or tag of the Hub (or of anything else that has
    revisions). Adapters whose source changed since they were locked are left out.

    Args:
        manifest: The manifest's path, or its data.
        policy: A policy file that must allow everything too.
        offline: Use no network.

    Raises:
        ManifestError: The manifest or the policy file is invalid.
        LockError: There is no lock, or it cannot be read.
    """
    file = open_manifest(manifest)
    policies = policies_in_force(file, policy)
    lock = lock_of(file)
    if lock is None:
        where = Where(file=lock_name(file))
        raise LockError(lock_codes.LOCK_MISSING.finding("The lock is missing", where))
    access = Access(offline=offline, policies=policies).under(lock, frozenset()).started()

    def one(name: str) -> Standing | AdapterdockError | None:
        try:
            where = file.where(("adapters", name, "source"))
            if forbidden := check_place(file, name, access, where):
                return SourceError(*forbidden)
            return _standing(file, name, lock.adapters[name], access)
        except AdapterdockError as error:
            return error

    found = each(one, list(_compared(file, lock)), _WORKERS)
    errors = tuple(one for one in found if isinstance(one, AdapterdockError))
    return Outdated(
        tuple(one for one in found if isinstance(one, Standing)),
        tuple(dict.fromkeys(finding for error in errors for finding in error.findings)),
        errors,
    )


def _compared(file: ManifestFile, lock: Lock) -> Iterator[str]:
    for name in sorted(entry for entry in kept(file, lock) if entry is not None):
        source = file.manifest.adapters[name].source
        if source is not None and lock.adapters[name].revision is not None and not source.is_commit:
            yield name


def _standing(
    file: ManifestFile, name: str, locked: LockedAdapter, access: Access
) -> Standing | None:
    source = file.manifest.adapters[name].source
    assert source is not None
    assert locked.revision is not None
    if locked.registry is None:
        folder = open_adapter_folder(file, name, access)
        if folder.revision is None:
            return None
        return Standing(name, str(source), locked.revision, folder.revision)
    opening = opening_of(file, name, access, file.where(("adapters", name, "source")))
    registry = open_registry_of(opening)
    newest = _newest(registry, name_in_registry(source), locked.registry.version)
    alias, selector = None, selector_of(source)
    try:
        resolved, _ = open_published(registry, opening)
    except SourceError as error:
        if error.code != codes.NOT_PUBLISHED.id:
            raise
        selected = None
    else:
        selected, now, before = resolved.entry.version, resolved.alias, locked.registry.alias
        if now is not None and before is not None and now.serial != before.serial:
            alias = f"{selector.text} {before.serial} -> {now.serial}"
    return Standing(name, str(source), locked.registry.version, selected, newest, alias)


def _newest(registry: OpenRegistry, name: str, locked: str) -> str | None:
    listing, before = registry.listing(name), parse_version(locked)
    with_prereleases = before is not None and before.prerelease is not None

    def wanted(version: Version) -> bool:
        if version.prerelease is not None and not with_prereleases:
            return False
        mark = registry.catalogue.mark(listing, str(version))
        return mark is None or not mark.yanked

    return next((str(v) for v in reversed(listing.versions) if wanted(v)), None)
