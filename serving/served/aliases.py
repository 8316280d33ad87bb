"""Aliases of registries that point to something newer than the lock: followed without a new lock.

A promotion changes where an alias points, and nothing else. So a newer value of the same alias, in
the same registry, with an unbroken history and the signatures that the policies demand, may be
served; everything else must be exactly the lock's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError, UsageError
from ...manifests.findings.finding import Finding
from ...manifests.lockfile import Lock, LockedAdapter, LockedValue
from ...manifests.manifest import ManifestFile
from ...registry.access.access import Access, opening_of
from ...registry.access.published import open_published, open_registry_of, selector_of
from ...registry.access.session import Session
from ...registry.files.pool import each
from ...registry.lock import make_lock
from ...registry.locks.state import recipe_digest

VARIABLE = "ADAPTERDOCK_FOLLOW"
_WAYS = {"": True, "aliases": True, "lock": False}
_WORKERS = 8


@dataclass(frozen=True)
class Moved:
    """What the aliases of a manifest point to now: by adapter, a value that is newer than the
    locked one; and what kept others from being asked."""

    values: Mapping[str, LockedValue] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def follows_aliases(chosen: bool | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether aliases are followed: as the caller chose, else as ADAPTERDOCK_FOLLOW in ``environ``
    says. Raises :class:`UsageError` for an unknown value."""
    if chosen is not None:
        return chosen
    said = environ.get(VARIABLE, "")
    if said not in _WAYS:
        raise UsageError(
            codes.BAD_FOLLOW.finding(
                f"Invalid {VARIABLE}", found=said[:100], expected="aliases, lock"
            )
        )
    return _WAYS[said]


def moved(file: ManifestFile, lock: Lock, session: Session) -> Moved:
    """Ask the registries where the aliases of ``lock`` point now."""
    access = session.access.under(lock, frozenset()).started()
    names = [name for name in file.manifest.adapters if _is_alias(file, lock, name)]

    def ask(name: str) -> LockedValue | AdapterdockError | None:
        try:
            return _newer(file, lock, name, access)
        except AdapterdockError as error:
            return error

    values: dict[str, LockedValue] = {}
    findings: list[Finding] = []
    for name, found in zip(names, each(ask, names, _WORKERS), strict=True):
        if isinstance(found, AdapterdockError):
            findings += found.findings
        elif found is not None:
            values[name] = found
    return Moved(values, tuple(dict.fromkeys(findings)))


def upgraded(file: ManifestFile, lock: Lock, names: Collection[str], session: Session) -> Lock:
    """``lock`` with these adapters as their aliases point now: resolved and checked against the
    locked base, as ``adapterdock lock --upgrade`` does, and written nowhere. Raises what that
    does."""
    made, _ = make_lock(file, lock, session, upgrade=names)
    return lock.model_copy(
        update={
            "adapters": {**lock.adapters, **{name: made.adapters[name] for name in names}},
            "compositions": made.compositions,
            "accepted": tuple(sorted({*lock.accepted, *made.accepted})),
        }
    )


def with_followed(file: ManifestFile, lock: Lock, followed: Mapping[str, LockedAdapter]) -> Lock:
    """``lock`` with the adapters that were followed before, where these are newer."""
    newer = {
        name: entry
        for name, entry in followed.items()
        if name in lock.adapters
        and _serial(entry) > _serial(lock.adapters[name])
        and _same_alias(entry, lock.adapters[name])
    }
    if not newer:
        return lock
    adapters = {**lock.adapters, **newer}
    compositions = {
        name: entry.model_copy(
            update={
                "digest": recipe_digest(
                    file.manifest.compositions[name], adapters, file.manifest.compositions
                )
            }
        )
        for name, entry in lock.compositions.items()
    }
    return lock.model_copy(update={"adapters": adapters, "compositions": compositions})


def take_up(
    file: ManifestFile,
    lock: Lock,
    followed: Mapping[str, LockedAdapter],
    serve: Callable[[Lock], object],
) -> tuple[Lock, tuple[Finding, ...]]:
    """At a start: ``lock`` with what was followed before it, all of it or, where ``serve`` refuses
    that, what can be served one by one; and why the rest cannot.

    Args:
        file: The manifest.
        lock: Its lock.
        followed: What was followed.
        serve: Serves what such a lock says, or raises :class:`AdapterdockError`.

    Returns:
        The last lock that ``serve`` took (``lock`` where there is nothing newer), and findings.
    """
    names = [*newer_entries(lock, with_followed(file, lock, followed))]
    tries: Sequence[Sequence[str]] = [names] if names else []
    findings: list[Finding] = []
    while tries:
        these, *rest = tries
        newer = with_followed(file, lock, {name: followed[name] for name in these})
        try:
            serve(newer)
            lock = newer
        except AdapterdockError as error:
            if len(these) > 1:
                rest = [[name] for name in these]
            else:
                findings += error.findings
        tries = rest
    return lock, tuple(findings)


def newer_entries(lock: Lock, served: Lock) -> dict[str, LockedAdapter]:
    """What of ``served`` is newer than ``lock``: what was followed."""
    return {
        name: entry
        for name, entry in served.adapters.items()
        if name in lock.adapters and entry != lock.adapters[name]
    }


def _is_alias(file: ManifestFile, lock: Lock, name: str) -> bool:
    source, entry = file.manifest.adapters[name].source, lock.adapters.get(name)
    return (
        source is not None
        and source.is_registry
        and selector_of(source).alias is not None
        and entry is not None
        and entry.registry is not None
        and entry.registry.alias is not None
    )


def _newer(file: ManifestFile, lock: Lock, name: str, access: Access) -> LockedValue | None:
    """The alias's value now, if it is newer. Its chain from the locked value is checked."""
    opening = opening_of(file, name, access, file.where(("adapters", name, "source")))
    registry = open_registry_of(opening)
    found, _ = open_published(registry, opening)
    before = lock.adapters[name].registry
    assert before is not None and before.alias is not None
    if found.alias is None or found.alias.serial <= before.alias.serial:
        return None
    return LockedValue(serial=found.alias.serial, sha256=found.alias.digest)


def _serial(entry: LockedAdapter) -> int:
    alias = entry.registry.alias if entry.registry else None
    return alias.serial if alias else 0


def _same_alias(one: LockedAdapter, other: LockedAdapter) -> bool:
    ids = [entry.registry.id if entry.registry else None for entry in (one, other)]
    return one.declared == other.declared and one.options == other.options and ids[0] == ids[1]


def is_lasting(findings: Iterable[Finding]) -> bool:
    """Whether trying the same value again finds the same: nothing was out of reach."""
    return all(not finding.code.startswith(("AD2", "AD6")) for finding in findings)
