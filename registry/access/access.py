"""How the sources of a manifest are reached: under which policies, and held to which pins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...manifests.findings import lock as lock_codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Base, Policy
from ...manifests.language.source import Source
from ...manifests.lockfile import Lock, LockedAdapter, LockedBase
from ...manifests.manifest import ManifestFile
from ..files.facts import AdapterFacts, AdapterPlan, BaseFacts, FileFact, Layout
from ..files.known_headers import KnownHeaders
from ..files.once import Once
from ..locks.inputs import LockEntry
from ..locks.state import facts_of
from ..sources.folder import Folder
from ..sources.open import open_source
from ..sources.roads import Road
from . import policy as policy_checks
from .open_registries import OpenRegistries
from .opening import Opening, opener_of

if TYPE_CHECKING:
    from ..store.store import Store

AskLayout = Callable[[Mapping[str, Any]], Layout | None]
"""``ask(config)``: the modules of the model that a ``config.json`` describes, or ``None``."""


AskPeft = Callable[[BaseFacts | None, AdapterFacts, AdapterPlan, Where], list[Finding] | None]
"""``ask(base, adapter, plan, where)``: findings of PEFT on an adapter whose method only PEFT knows;
``None`` where PEFT cannot check it."""


@dataclass(frozen=True)
class Access:
    """How sources may be reached in this run."""

    offline: bool = False
    policies: tuple[Policy, ...] = ()
    pins: Mapping[LockEntry, LockedAdapter | LockedBase] = field(default_factory=dict)
    """What the lock pins: adapters by name, and the base (``None``)."""
    seen: Mapping[str, LockedAdapter] = field(default_factory=dict)
    """What the lock has of adapters that the manifest still declares, pinned or not."""
    registries: OpenRegistries | None = None
    """The registries that are open in this command or call; see :meth:`started`."""
    bases: Once | None = None
    """The bases that were read in this command, if it checks several manifests."""
    adapters: Once | None = None
    """The adapters that were read of this manifest, if it is checked on several bases."""
    headers: KnownHeaders | None = None
    """Headers of adapters that were parsed in this command, if it checks several manifests."""
    store: Store | None = None
    """Pinned files are looked for here before their source is asked."""
    in_memory: Mapping[str, Folder] = field(default_factory=dict)
    """Adapters that the caller has in memory; they replace their sources."""
    layout: Layout | None = None
    """The live model's, if the caller has one. The base's files are then not read."""
    base_config: Mapping[str, Any] = field(default_factory=dict)
    """That model's ``config.json``."""
    ask: AskLayout | None = None
    """Answers for the layout of an architecture that the table does not have."""
    ask_peft: AskPeft | None = None
    """Answers for methods that attach through PEFT."""

    def started(self) -> Access:
        """The same, with registries that stay open from now on. Made where a command begins, and
        not kept after it."""
        return self if self.registries is not None else replace(self, registries=OpenRegistries())

    def under(self, lock: Lock | None, entries: Collection[LockEntry]) -> Access:
        """The same, pinned to these entries of ``lock`` (mutable ones pin nothing)."""
        if lock is None:
            return self
        pins: dict[LockEntry, LockedAdapter | LockedBase] = {
            name: entry
            for name, entry in lock.adapters.items()
            if name in entries and not entry.mutable
        }
        if None in entries and lock.base is not None:
            pins[None] = lock.base
        return replace(self, pins=pins, seen=lock.adapters)


def open_adapter_folder(file: ManifestFile, name: str, access: Access) -> Folder:
    """The folder of one declared adapter, at its pins if it has some."""
    adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))
    in_memory = access.in_memory.get(name)
    if in_memory is not None:
        _require_pinned(in_memory, name, access, where)
        return in_memory
    assert adapter.source is not None  # a new adapter has no folder
    return _open(file, name, adapter.source, adapter.storage_options, access, where)


def check_model_signature(
    file: ManifestFile,
    name: str,
    access: Access,
    files: Iterable[FileFact],
    folder: Folder | None,
    *,
    complete: bool = True,
) -> list[Finding]:
    """Findings where a policy requires a ``model.sig``, and these files of a declared adapter are
    not signed. ``folder`` is the adapter's, if it is open; a lock names none but the files in
    use. See :func:`check_signed` for ``complete``."""
    if not any(one.require_model_signature for one in access.policies):
        return []
    from .model_signature import FILE
    from .signed_folders import check_signed

    adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))

    def whole() -> Folder:
        in_memory = access.in_memory.get(name)
        found = folder if in_memory is None else in_memory
        if found is not None and (in_memory is not None or FILE in found.files()):
            return found
        assert adapter.source is not None  # a new adapter has no files
        return _open(file, name, adapter.source, adapter.storage_options, access, where, whole=True)

    cache = None if access.store is None else access.store.root
    return check_signed(access.policies, files, whole, cache, where, complete=complete)


def open_base_folder(file: ManifestFile, access: Access) -> Folder | None:
    """The base's folder, or ``None`` where the manifest declares none."""
    base = file.manifest.base
    if base.model is None:
        return None
    where = file.where(("base", "model"))
    return _open(file, None, base.model, base.storage_options, access, where)


def check_place(
    file: ManifestFile, entry: LockEntry, access: Access, where: Where
) -> list[Finding]:
    """Findings where a policy does not allow a declared source (an adapter's, by name, or the
    base's), or where the manifest has it fetched from."""
    declared = file.manifest.base if entry is None else file.manifest.adapters[entry]
    source = declared.model if isinstance(declared, Base) else declared.source
    if source is None:
        return []
    if entry is not None and source.is_registry:
        return _check_in_registry(file, entry, source, access, where)
    check = policy_checks.check_base if entry is None else policy_checks.check_source
    findings = check(source, access.policies, file.directory, where)
    pins = access.pins.get(entry)
    revision = None if pins is None else pins.revision
    try:
        road = Road.of(file, source, declared.storage_options, revision, where)
    except SourceError as error:
        return [*findings, *error.findings]
    base = entry is None
    return findings + policy_checks.check_road(
        road, access.policies, file.directory, where, base=base
    )


def _require_pinned(folder: Folder, name: str, access: Access, where: Where) -> None:
    pins = access.pins.get(name)
    files = folder.files()
    for path, pin in ({} if pins is None else facts_of(pins.files)).items():
        found = files[path].sha256 if path in files else None
        if found != pin.sha256:
            raise IntegrityError(
                lock_codes.CHANGED_UNDER_LOCK.finding(
                    f"{path} of {name!r}, which you passed in memory, is not the locked one",
                    where,
                    found=found or "no such file",
                    expected=pin.sha256,
                    hint="Pass the locked files, or load the manifest without its lock.",
                )
            )


def _open(
    file: ManifestFile,
    entry: LockEntry,
    source: Source,
    storage_options: Mapping[str, Any],
    access: Access,
    where: Where,
    *,
    whole: bool = False,
) -> Folder:
    """``whole`` is with all its files, at the pinned version."""
    pins = access.pins.get(entry)
    files = None if pins is None or whole else facts_of(pins.files)
    revision = None if pins is None else pins.revision
    lists = policy_checks.lists_for(access.policies, base=entry is None)
    road = Road.of(file, source, storage_options, revision, where)
    if road.is_mirrored_by_user:
        lists = ()

    def open_it(files: Mapping[str, FileFact] | None) -> Folder:
        opener = opener_of(source)
        if opener is not None:
            return opener(opening_of(file, entry, access, where))
        return open_source(
            source,
            directory=file.directory,
            storage_options=storage_options,
            mirrors=file.manifest.mirrors,
            offline=access.offline,
            revision=revision,
            files=files,
            permits=(lambda url: policy_checks.permits(lists, url)) if lists else None,
            vouches=policy_checks.vouches_for(access.policies, road.from_user),
            where=where,
        )

    if files is None or access.store is None or source.is_local:
        return open_it(files)
    from ..sources.from_store import StoredFolder

    stored = StoredFolder.find(source, revision, files, access.store, open_it, where)
    if stored is not None and source.is_registry:
        from .published import is_trusted

        if not is_trusted(opening_of(file, entry, access, where), access.store):
            return open_it(files)
    return stored or open_it(files)


def opening_of(file: ManifestFile, entry: LockEntry, access: Access, where: Where) -> Opening:
    """What decides how a published source is opened: an adapter's, by name, or the base's."""
    declared = file.manifest.base if entry is None else file.manifest.adapters[entry]
    source = declared.model if isinstance(declared, Base) else declared.source
    assert source is not None
    seen = None if entry is None else access.seen.get(entry)
    same = seen is not None and seen.declared == str(source)
    return Opening(
        source,
        file,
        declared.storage_options,
        access.pins.get(entry),
        seen if same else None,
        access.policies,
        access.offline,
        access.registries,
        access.store,
        where=where,
    )


def _check_in_registry(
    file: ManifestFile, name: str, source: Source, access: Access, where: Where
) -> list[Finding]:
    """The same for an adapter in a registry. An unknown registry is found when it is opened."""
    from .published import name_in_registry, place_if_known

    place = place_if_known(opening_of(file, name, access, where))
    if place is None:
        return []
    policies, options = access.policies, file.manifest.adapters[name].storage_options
    road = Road(place, options, None, file.from_user)
    return [
        *policy_checks.check_source(source, policies, file.directory, where, place),
        *policy_checks.check_registry_road(road, name_in_registry(source), policies, where),
    ]


def marks_of(file: ManifestFile, name: str, access: Access, folder: Folder) -> list[Finding]:
    """Warnings where the version in ``folder`` of a ``registry://`` adapter is yanked or
    deprecated."""
    source = file.manifest.adapters[name].source
    if source is None or not source.is_registry or folder.revision is None:
        return []
    from .published import warnings_of

    where = file.where(("adapters", name, "source"))
    return warnings_of(opening_of(file, name, access, where), folder.revision)
