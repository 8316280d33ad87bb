"""From a manifest and a lock to verified private copies: everything, or an error with all findings.

Whatever decides is read from the copies, after they were hashed: a source that changes meanwhile
changes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ...manifests.findings import artefacts as artefact_codes
from ...manifests.findings import fit as fit_codes
from ...manifests.findings import serving as codes
from ...manifests.findings.errors import FitError, RoutingError, StoreError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.language.rules import check_active, flatten, is_made
from ...manifests.language.source import Source
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.access import Access
from ...registry.access.session import Session
from ...registry.catalogue.values import check_values, look
from ...registry.checks.check_adapter import check_adapter
from ...registry.files.disk import fault
from ...registry.files.facts import BaseFacts
from ...registry.locks.state import kept
from ...registry.pull import pull_pinned
from ...registry.read_facts import gather_adapter
from ...registry.recorded_base import names_of_base, recorded_base
from ...registry.resolution import Opened, Resolution
from ...registry.resolve import resolve
from ...registry.sources.folder import Folder
from ...registry.sources.open import open_source
from ..copies.copies import Copies
from ..copies.joined import Member, joined_digest, plan_joined, write_joined
from ..targets.adapters import check_adapter as check_for_target
from ..targets.adapters import check_base
from ..targets.compositions import check_composition
from ..targets.target import Target
from .state import ServedAdapter

_BASE_UNREAD = frozenset({artefact_codes.SOURCE_UNREACHABLE.id, artefact_codes.BASE_NOT_READ.id})
"""What is found where the base cannot be reached. The lock was made with it: these bytes are known
to fit."""


@dataclass(frozen=True)
class Prepared:
    """What can be served. ``refused`` says by name why the rest cannot be: names that are no
    adapter of their own. Digests are those of ``adapters`` that were found sound."""

    adapters: Mapping[str, ServedAdapter]
    refused: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Preparing:
    """Prepares again and again, and does nothing twice for the same content."""

    def __init__(self, copies: Copies, target: Target | None) -> None:
        self._copies = copies
        self._target = target
        self._sound: set[str] = set()

    def prepare(self, file: ManifestFile, lock: Lock, session: Session) -> Prepared:
        """Pull what ``lock`` pins, copy it, and check it.

        Raises:
            AdapterdockError: With all findings of the step that failed.
        """
        pulled = pull_pinned(file, lock, session, lock, with_base=False)
        folders: dict[str, Path] = {}
        for name, files in pulled.adapters.items():
            digest = lock.adapters[name].digest
            assert digest is not None  # a frozen lock pins every adapter
            with session.store.hold(one.fact.sha256 for one in files.values() if one.fact.sha256):
                folders[name] = self._copies.copy(digest, files)
        resolution = _resolved(file, lock, session, folders)
        accepted = session.accepted | frozenset(lock.accepted)
        notes = [*pulled.notes, *file.warnings]
        wrong = refused(_own(resolution, file), accepted)
        if wrong:
            raise FitError(*wrong)
        refusals: dict[str, tuple[Finding, ...]] = {
            name: (_without_files(name, file),)
            for name, adapter in file.manifest.adapters.items()
            if adapter.source is None
        }
        if self._target is not None:
            at = file.where(("base", "model"))
            notes += self._target.findings
            wrong += refused(check_base(self._target, resolution.base, at), accepted)
        for name in folders:
            wrong += self._check(name, resolution, lock, folders[name], accepted, notes)
        if wrong:
            raise FitError(*wrong)
        served: dict[str, ServedAdapter] = {}
        ranks = resolution.ranks
        for name, folder in folders.items():
            alone = check_active(file.manifest.rules, [name], ranks, file.where(("adapters", name)))
            if wrong := refused(alone, accepted):
                refusals[name] = tuple(wrong)
                continue
            entry = lock.adapters[name]
            size = sum(one.size for one in entry.files.values())
            assert entry.digest is not None
            served[name] = ServedAdapter(
                name, folder, entry.digest, entry.revision or "", size, entry.rank
            )
        for name in file.manifest.compositions:
            try:
                served[name] = self._joined(name, file, lock, resolution, folders, accepted, notes)
            except (RoutingError, FitError) as error:
                refusals[name] = error.findings
        return Prepared(served, refusals, tuple(dict.fromkeys(notes)))

    def _check(
        self,
        name: str,
        resolution: Resolution,
        lock: Lock,
        folder: Path,
        accepted: frozenset[str],
        notes: list[Finding],
    ) -> list[Finding]:
        """What is wrong with one adapter's values, and for the target."""
        opened = resolution.adapters[name]
        where = resolution.file.where(("adapters", name, "source"))
        digest = lock.adapters[name].digest or ""
        return [
            *self._values(digest, opened, folder, where),
            *self._for_target(opened, resolution.base, where, accepted, notes),
        ]

    def _values(self, digest: str, opened: Opened, folder: Path, where: Where) -> list[Finding]:
        if digest in self._sound or opened.facts is None or opened.plan is None:
            return []
        try:
            looked = look(opened.facts.headers, lambda file: folder / file)
        except OSError as error:
            raise StoreError(fault(error, folder, where)) from error
        found = check_values(opened.facts, opened.plan, looked, where)
        if not found:
            self._sound.add(digest)
        return found

    def _for_target(
        self,
        opened: Opened,
        base: BaseFacts | None,
        where: Where,
        accepted: frozenset[str],
        notes: list[Finding],
    ) -> list[Finding]:
        """What is wrong for the target; the rest goes into ``notes``."""
        if self._target is None or opened.facts is None or opened.plan is None:
            return []
        layout = opened.layout or (base.layout if base is not None else None)
        found = check_for_target(
            self._target, opened.facts, opened.plan, where, layout=layout, base=base
        )
        wrong = refused(found, accepted)
        notes += [finding for finding in found if finding not in wrong]
        return wrong

    # -- compositions ----------------------------------------------------------------------

    def _joined(
        self,
        name: str,
        file: ManifestFile,
        lock: Lock,
        resolution: Resolution,
        folders: Mapping[str, Path],
        accepted: frozenset[str],
        notes: list[Finding],
    ) -> ServedAdapter:
        """A composition as one adapter. Raises :class:`RoutingError` or :class:`FitError` where it
        cannot be one."""
        manifest, where = file.manifest, file.where(("compositions", name))
        for one in _with_inner(file, name):
            if is_made(manifest, one):
                way = manifest.compositions[one].combine
                message = f"{one!r} combines by {way!r}; only a sum is joined without torch"
                raise RoutingError(codes.NOT_JOINED.finding(message, where, found=way))
        weights = flatten(manifest, name)
        if new := [member for member in weights if member not in folders]:
            raise RoutingError(_without_files(new[0], file))
        if self._target is not None:
            found = check_composition(self._target, manifest, name, resolution.adapters, where)
            if wrong := refused(found, accepted):
                raise RoutingError(*wrong)
        broken = check_active(manifest.rules, weights, resolution.ranks, where)
        if wrong := refused(broken, accepted):
            raise RoutingError(*wrong)
        members: list[Member] = []
        for member, weight in weights.items():
            opened, digest = resolution.adapters[member], lock.adapters[member].digest
            assert opened.facts is not None and opened.plan is not None and digest is not None
            facts, plan = opened.facts, opened.plan
            members.append(Member(member, weight, digest, facts, plan, folders[member]))
        modules = plan_joined(members, where)
        recipe = lock.compositions[name].digest
        assert recipe is not None
        digest = joined_digest(recipe)
        folder = self._copies.make(digest, partial(write_joined, modules, members))
        opened = _opened_again(name, folder, file, resolution.base, where)
        wrong = [f for f in opened.findings if f.code not in _BASE_UNREAD | {_UNDECLARED}]
        wrong = refused(wrong, accepted)
        wrong += self._values(digest, opened, folder, where)
        wrong += self._for_target(opened, resolution.base, where, accepted, notes)
        if wrong:
            raise FitError(*wrong)
        size = sum(fact.size for fact in self._copies.files(digest))
        rank = opened.plan.rank if opened.plan else None
        return ServedAdapter(name, folder, recipe, "", size, rank)


_UNDECLARED = fit_codes.BASE_UNDECLARED.id


def _resolved(
    file: ManifestFile, lock: Lock, session: Session, folders: Mapping[str, Path]
) -> Resolution:
    """The facts of the copies, and whether they fit. Policies were obeyed when they were pulled."""
    pinned = Access(offline=session.access.offline, ask=session.access.ask, store=session.store)
    pinned = pinned.under(lock, {None} & kept(file, lock))
    opened = {name: folder_at(folder) for name, folder in folders.items()}
    return resolve(file, replace(pinned, in_memory=opened, seen={}))


def folder_at(path: Path) -> Folder:
    """A copy, as the folder of an adapter."""
    return open_source(Source.parse(str(path)), directory=path)


def _own(resolution: Resolution, file: ManifestFile) -> Iterable[Finding]:
    """What was found about the adapters. Sets that the rules forbid are refused one by one."""
    of_sets = {
        finding
        for name in file.manifest.compositions
        for finding in check_active(
            file.manifest.rules,
            flatten(file.manifest, name),
            resolution.ranks,
            file.where(("compositions", name)),
        )
    }
    for finding in resolution.findings:
        unread = finding.code in _BASE_UNREAD and finding.severity is Severity.UNCHECKED
        if finding not in of_sets and not unread:
            yield finding


def _opened_again(
    name: str, folder: Path, file: ManifestFile, base: BaseFacts | None, where: Where
) -> Opened:
    """A joined adapter, read as any other."""
    opened, declared = folder_at(folder), file.manifest.base
    facts = gather_adapter(name, opened, where)
    names = names_of_base(declared, file.directory, facts.config)
    findings, plan = check_adapter(
        facts,
        base,
        where=where,
        declared=declared.model,
        aliases=names,
        recorded=recorded_base(facts.config, names),
    )
    return Opened(opened, facts, plan, tuple(findings))


def _with_inner(file: ManifestFile, name: str) -> list[str]:
    """A composition, and those that it is made of."""
    found = [name]
    for one in found:
        found += [m for m in file.manifest.compositions[one].of if m in file.manifest.compositions]
    return found


def _without_files(name: str, file: ManifestFile) -> Finding:
    return codes.NO_FILES.finding(
        f"Adapter {name!r} is new and has no files", file.where(("adapters", name, "config"))
    )
