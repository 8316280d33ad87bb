"""What a manifest resolves to: sources opened, facts gathered, fit decided, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..manifests.findings import artefacts as codes
from ..manifests.findings import fit as fit_codes
from ..manifests.findings import lock as lock_codes
from ..manifests.findings import sources as source_codes
from ..manifests.findings.errors import AdapterdockError, IntegrityError, SourceError
from ..manifests.findings.finding import Finding, Report, Severity, Where
from ..manifests.language.rules import check_active, flatten
from ..manifests.language.schema import Adapter, Base, Policy
from ..manifests.language.source import Source
from ..manifests.lockfile import BEGUN, Lock, LockedAdapter, LockedBase
from ..manifests.manifest import ManifestFile
from . import policy as policy_checks
from .base.architectures import layout_of
from .checks.check_adapter import check_adapter
from .checks.fetching import check as check_fetching
from .checks.loaded_as import decide
from .checks.zeros import with_zeros
from .files.facts import AdapterFacts, AdapterPlan, BaseFacts, FileFact, Header, Layout, TensorInfo
from .files.pool import each
from .locks.state import LockEntry, facts_of
from .read_facts import (
    READERS,
    gather_adapter,
    gather_base,
    gather_tokenizer,
    read_tokenizer_files,
    reader_of,
    tokenizer_of,
    zeros_of_adapter,
)
from .recorded_base import names_of_base, recorded_base
from .sources.folder import Folder
from .sources.from_store import StoredFolder
from .sources.open import open_source
from .sources.roads import Road

if TYPE_CHECKING:
    from .base.fingerprint import Measured
    from .store.store import Store

OPENERS = 8

_OUT_OF_REACH = frozenset(
    code.id
    for code in (
        source_codes.OFFLINE,
        source_codes.UNREACHABLE,
        source_codes.TIMED_OUT,
        source_codes.SERVER_ERROR,
        source_codes.RATE_LIMITED,
        source_codes.TRUNCATED,
    )
)
"""What says nothing of the source itself: it may well be right, and could not be asked."""


@dataclass(frozen=True)
class Opened:
    """One adapter as far as it could be read. ``facts`` is ``None`` where it could not be."""

    folder: Folder | None = None
    facts: AdapterFacts | None = None
    plan: AdapterPlan | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def records_base(self) -> bool:
        """Whether its file carries the fingerprint of the base that it was saved on."""
        return self.facts is not None and self.facts.records_base


@dataclass(frozen=True)
class Resolution:
    """Everything that was found out about a manifest, and what is wrong with it."""

    file: ManifestFile
    base_folder: Folder | None
    base: BaseFacts | None
    adapters: Mapping[str, Opened]
    findings: tuple[Finding, ...]
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    base_wanted: bool = False
    """Whether the manifest declares a base, and no live model stands for it."""

    @property
    def complete(self) -> bool:
        """Whether everything declared could be read (what a live model stands for aside)."""
        return (self.base is not None or not self.base_wanted) and all(
            one.facts is not None and one.plan is not None for one in self.adapters.values()
        )

    @property
    def base_is_here(self) -> bool:
        """Whether the base's weights are on this machine."""
        folder, base = self.base_folder, self.base
        if folder is None or base is None:
            return False
        return all(folder.local(shard) is not None for shard in base.headers)

    @property
    def ranks(self) -> dict[str, int]:
        return {n: o.plan.rank for n, o in self.adapters.items() if o.plan is not None}

    def report(self, accepted: Iterable[str] = ()) -> Report:
        """The verdict, with a line of facts for each adapter that could be read."""
        return Report(
            subject=self.file.file or "<manifest>",
            findings=self.findings,
            accepted=frozenset(accepted),
            adapters={name: describe(o) for name, o in self.adapters.items()},
        )


AskLayout = Callable[[Mapping[str, Any]], Layout | None]
"""``ask(config)``: the modules of the model that a ``config.json`` describes, or ``None``."""


AskPeft = Callable[[BaseFacts | None, AdapterFacts, AdapterPlan, Where], list[Finding] | None]
"""``ask(base, adapter, plan, where)``: what PEFT has against an adapter of a method that only PEFT
knows; ``None`` where it cannot tell."""


@dataclass(frozen=True)
class Access:
    """How sources may be reached in this run."""

    offline: bool = False
    policies: tuple[Policy, ...] = ()
    pins: Mapping[LockEntry, LockedAdapter | LockedBase] = field(default_factory=dict)
    """What a lock holds the adapters, by name, and the base (``None``) to."""
    store: Store | None = None
    """Where pinned files are looked for before their source is; nowhere else without one."""
    given: Mapping[str, Folder] = field(default_factory=dict)
    """Adapters that the caller hands over in memory, in place of their sources."""
    layout: Layout | None = None
    """The live model's, where the caller has one: then the base's own files are not read."""
    base_config: Mapping[str, Any] = field(default_factory=dict)
    """That model's ``config.json``."""
    ask: AskLayout | None = None
    """Whom to ask for the layout of an architecture that the table does not know."""
    ask_peft: AskPeft | None = None
    """Whom to ask about a method that attaches through PEFT."""

    def under(self, lock: Lock | None, entries: Collection[LockEntry]) -> Access:
        """The same, held to these entries of ``lock`` (its mutable ones pin nothing)."""
        if lock is None:
            return self
        pins: dict[LockEntry, LockedAdapter | LockedBase] = {
            name: entry
            for name, entry in lock.adapters.items()
            if name in entries and not entry.mutable
        }
        if None in entries and lock.base is not None:
            pins[None] = lock.base
        return replace(self, pins=pins)


def resolve(file: ManifestFile, access: Access = Access()) -> Resolution:
    """Open every source of ``file``, gather the facts, and decide fit.

    Nothing raises for what a manifest or an artefact says: it is in ``findings``, all of it.
    """
    manifest = file.manifest
    findings: list[Finding] = []
    base_folder, base, tokenizer_files = _open_base(file, access, findings)
    names = list(manifest.adapters)
    # threads pass the time of a request; local files take none, and threads would only be in
    # one another's way
    sources = {name: manifest.adapters[name].source for name in names}
    remote = [name for name, source in sources.items() if source and not source.is_local]
    workers = OPENERS if remote else 1
    read = dict(
        zip(names, each(lambda n: _read_adapter(n, file, access), names, workers), strict=True)
    )
    wanted = None
    if base is not None:
        facts = {name: one.facts for name, one in read.items() if one.facts is not None}
        wanted = decide(base, manifest.base, facts, file.where, partial(_make_layout, access, base))
        base = wanted.base
        findings.extend(wanted.findings)

    def check(name: str) -> Opened:
        if manifest.adapters[name].source is None:
            return _begin_adapter(name, file, access, base)
        return _check_read(name, read[name], file, access, base)

    opened = dict(zip(names, each(check, names, workers), strict=True))
    for name, one in opened.items():
        findings.extend(one.findings)
        if wanted is not None:
            where = file.where(("adapters", name))
            findings.extend(wanted.check(name, one.plan, where))
    resolution = Resolution(
        file,
        base_folder,
        base,
        opened,
        (),
        tokenizer_files,
        access.policies,
        base_wanted=manifest.base.model is not None and access.layout is None,
    )
    findings.extend(_check_sets(file, resolution.ranks))
    return replace(resolution, findings=tuple(dict.fromkeys(findings)))


def resolve_base(file: ManifestFile, access: Access) -> Resolution:
    """The same for the base alone."""
    findings: list[Finding] = []
    folder, base, tokens = _open_base(file, access, findings)
    wanted = file.manifest.base.model is not None
    return Resolution(
        file, folder, base, {}, tuple(findings), tokens, access.policies, base_wanted=wanted
    )


def open_adapter_folder(file: ManifestFile, name: str, access: Access) -> Folder:
    """The folder of one declared adapter, held to its pins where there are some."""
    adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))
    given = access.given.get(name)
    if given is not None:
        _require_pinned(given, name, access, where)
        return given
    assert adapter.source is not None  # one that is begun has no folder
    return _open(file, name, adapter.source, adapter.storage_options, access, where)


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


def _require_pinned(given: Folder, name: str, access: Access, where: Where) -> None:
    pins = access.pins.get(name)
    files = given.files()
    for path, pin in ({} if pins is None else facts_of(pins.files)).items():
        found = files[path].sha256 if path in files else None
        if found != pin.sha256:
            raise IntegrityError(
                lock_codes.CHANGED_UNDER_LOCK.finding(
                    f"{path} of {name!r}, which was handed over in memory, is not the locked one",
                    where,
                    found=found or "no such file",
                    expected=pin.sha256,
                    hint="hand over what was locked, or load the manifest without its lock",
                )
            )


def _open(
    file: ManifestFile,
    entry: LockEntry,
    source: Source,
    storage_options: Mapping[str, Any],
    access: Access,
    where: Where,
) -> Folder:
    pins = access.pins.get(entry)
    files = None if pins is None else facts_of(pins.files)
    revision = None if pins is None else pins.revision
    lists = policy_checks.lists_for(access.policies, base=entry is None)
    road = Road.of(file, source, storage_options, revision, where)
    if road.is_mirrored_by_user:
        lists = ()

    def open_it(files: Mapping[str, FileFact] | None) -> Folder:
        return open_source(
            source,
            directory=file.directory,
            storage_options=storage_options,
            mirrors=file.manifest.mirrors,
            offline=access.offline,
            revision=revision,
            files=files,
            permits=(lambda url: policy_checks.permits(lists, url)) if lists else None,
            vouches=policy_checks.vouches_for(access.policies, road.given),
            where=where,
        )

    if files is None or access.store is None or source.is_local:
        return open_it(files)
    stored = StoredFolder.find(source, revision, files, access.store, open_it, where)
    return stored or open_it(files)


def measure(resolution: Resolution, *, weights: bool = True) -> Measured:
    """The fingerprint of the resolution's base, ``weights`` included if asked for (a short range
    read of each tensor). Raises what reading does, and :class:`FingerprintError`."""
    from .base.fingerprint import fingerprint_of

    base, folder = resolution.base, resolution.base_folder
    assert base is not None and folder is not None
    return fingerprint_of(
        base,
        reader_of(folder) if weights else None,
        resolution.tokenizer_files,
        workers=1 if resolution.base_is_here else READERS,
    )


def check_records(
    resolution: Resolution, measured: Measured, *, weights: bool = True
) -> list[Finding]:
    """What the adapters' files record of their base that the ``measured`` one is not."""
    from .checks.base_record import check

    file = resolution.file
    found: list[Finding] = []
    for name, opened in resolution.adapters.items():
        if opened.facts is not None and opened.records_base:
            where = file.where(("adapters", name, "source"))
            found += check(opened.facts.header.metadata, measured, where, weights=weights)
    return found


def describe(opened: Opened) -> dict[str, Any]:
    """One adapter's facts as plain data, for reports and for ``show``."""
    facts, plan, folder = opened.facts, opened.plan, opened.folder
    if facts is None:
        return {}
    return {
        "source": BEGUN if folder is None else str(folder.pinned),
        "method": facts.peft_type,
        **({} if facts.origin is None else {"format": facts.origin.format}),
        "rank": plan.rank if plan else None,
        "sites": len(plan.sites) if plan else None,
        "targets": list(targets(plan)) if plan else [],
        "bytes": sum(f.size for f in facts.files),
        "bytes_read": 0 if folder is None else folder.bytes_read,
    }


def targets(plan: AdapterPlan) -> tuple[str, ...]:
    """The adapted modules by their last name: ``q_proj``, ``v_proj``."""
    whole = (*plan.modules, *plan.saved, *plan.tuned, *plan.embeddings)
    return tuple(sorted({module.rpartition(".")[2] for module in whole}))


T = TypeVar("T")


def _attempt(act: Callable[[], T], findings: list[Finding], where: Where) -> T | None:
    """``act()``, or ``None`` with its findings noted. Out of reach is *unchecked*, not wrong."""
    try:
        return act()
    except AdapterdockError as error:
        for finding in error.findings:
            if finding.code in _OUT_OF_REACH:
                finding = codes.SOURCE_UNREACHABLE.finding(
                    finding.message, where, found=finding.found, hint=finding.hint
                )
            findings.append(finding)
    return None


def _open_base(
    file: ManifestFile, access: Access, findings: list[Finding]
) -> tuple[Folder | None, BaseFacts | None, Mapping[str, bytes]]:
    base = file.manifest.base
    where = file.where(("base", "model"))
    if base.model is None:
        return None, None, {}
    forbidden = check_place(file, None, access, where)
    findings.extend(forbidden)
    if forbidden or access.layout is not None:
        return None, None, {}
    folder = _attempt(lambda: open_base_folder(file, access), findings, where)
    if folder is None:
        return None, None, {}
    facts = _attempt(
        lambda: gather_base(folder, where, remote_code=base.trust_remote_code), findings, where
    )
    if facts is None:
        return folder, None, {}
    fetched = check_fetching(facts.config, where, remote_code=base.trust_remote_code)
    if fetched:
        findings.extend(fetched)
        return folder, None, {}
    tokens = _attempt(lambda: read_tokenizer_files(folder, where), findings, where) or {}
    known = _attempt(lambda: tokenizer_of(tokens, folder, where), findings, where)
    layout = facts.layout or (access.ask(facts.config) if access.ask is not None else None)
    return folder, replace(facts, tokenizer=known, layout=layout), tokens


def _make_layout(
    access: Access,
    base: BaseFacts,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
) -> Layout | None:
    found = layout_of(config, tensors, base.reported_sizes)
    return access.ask(config) if found is None and access.ask is not None else found


def _read_adapter(name: str, file: ManifestFile, access: Access) -> Opened:
    """An adapter's config and header; of a new one, the config that it is given."""
    adapter: Adapter = file.manifest.adapters[name]
    if adapter.source is None:
        return Opened(facts=AdapterFacts(name, None, adapter.config or {}, Header({})))
    where = file.where(("adapters", name, "source"))
    findings = check_place(file, name, access, where)
    if findings:
        return Opened(findings=tuple(findings))
    if adapter.mutable:
        findings.append(lock_codes.LOCK_MUTABLE.finding(f"adapter {name!r} is mutable", where))
        findings.extend(policy_checks.check_digest(None, access.policies, name, where))
    folder = _attempt(lambda: open_adapter_folder(file, name, access), findings, where)
    if folder is None:
        return Opened(findings=tuple(findings))
    facts = _attempt(lambda: gather_adapter(name, folder, where), findings, where)
    if facts is None:
        return Opened(folder, findings=tuple(findings))
    findings.extend(policy_checks.check_size(facts.files, access.policies, name, where))
    return Opened(folder, facts, findings=tuple(findings))


def _check_read(
    name: str, read: Opened, file: ManifestFile, access: Access, base: BaseFacts | None
) -> Opened:
    """The same adapter with whether it fits."""
    folder, facts, findings = read.folder, read.facts, [*read.findings]
    if folder is None or facts is None:
        return read
    where = file.where(("adapters", name, "source"))
    names = names_of_base(file.manifest.base, file.directory, facts.config)
    recorded = recorded_base(facts.config, names)

    def check(known: AdapterFacts) -> tuple[list[Finding], AdapterPlan | None]:
        return check_adapter(
            known,
            base,
            where=where,
            layout=access.layout,
            declared=file.manifest.base.model,
            aliases=names,
            recorded=recorded,
        )

    checked, plan = check(facts)
    layout = access.layout or (base.layout if base is not None else None)
    asked = partial(with_zeros, facts, plan, layout, zeros_of_adapter(folder, where))
    told = _attempt(asked, findings, where)
    if told is not None and told.zeros:
        facts = told
        checked, plan = check(facts)
    if not any(f.severity is Severity.ERROR for f in checked):
        # The vocabulary is read last: a misfit is told from the header alone.
        tokens = _attempt(lambda: gather_tokenizer(folder, where), findings, where)
        if tokens is not None:
            facts = replace(facts, tokenizer=tokens)
            checked, plan = check(facts)
    if access.ask_peft is not None and plan is not None:
        asked = plan.converted(facts)
        checked = _asked_peft(access.ask_peft, base, asked, plan, checked, where)
    if base is None and access.layout is None and file.manifest.base.model is not None:
        checked = [_with_base_unread(f, name, where) for f in checked]
    findings.extend(checked)
    return Opened(folder, facts, plan, tuple(findings))


def _asked_peft(
    ask: AskPeft,
    base: BaseFacts | None,
    facts: AdapterFacts,
    plan: AdapterPlan,
    checked: list[Finding],
    where: Where,
) -> list[Finding]:
    """What was left open for PEFT to tell is settled, if it can tell."""
    rest = [f for f in checked if f.code != fit_codes.PEFT_SHAPES_UNCHECKED.id]
    if len(rest) == len(checked) or any(f.severity is Severity.ERROR for f in rest):
        return checked
    said = ask(base, facts, plan, where)
    return checked if said is None else [*rest, *said]


def _begin_adapter(name: str, file: ManifestFile, access: Access, base: BaseFacts | None) -> Opened:
    """A new adapter, as far as config and layout tell. Where there is no layout, what else is wrong
    is told all the same."""
    from .checks.base_record import without_names
    from .checks.new_adapter import plan_new_adapter

    config = file.manifest.adapters[name].config or {}
    where = file.where(("adapters", name, "config"))
    layout = access.layout or (base.layout if base is not None else None)
    said = access.base_config if base is None else base.loaded_config
    beginning, findings = plan_new_adapter(config, said, layout, where)
    unplaced = AdapterFacts(name, None, config, Header({}))
    if beginning is None:
        wrong = any(finding.severity is Severity.ERROR for finding in findings)
        plan = None if wrong else AdapterPlan(())
        return Opened(None, None if wrong else unplaced, plan, tuple(findings))
    facts = AdapterFacts(name, None, beginning.config, beginning.header)
    checked, plan = check_adapter(facts, base, where=where, layout=access.layout)
    return Opened(None, facts, plan, (*findings, *without_names(checked)))


def _with_base_unread(finding: Finding, name: str, where: Where) -> Finding:
    """Fit cannot tell a base that was not read from one that is not declared."""
    if finding.code != fit_codes.BASE_UNDECLARED.id:
        return finding
    return codes.BASE_NOT_READ.finding(f"{name} was checked by itself only", where)


def _check_sets(file: ManifestFile, ranks: Mapping[str, int]) -> list[Finding]:
    """Rules against every declared set, now that ranks are known."""
    manifest = file.manifest
    findings: list[Finding] = []
    known = all(name in ranks for name in manifest.adapters)
    if not known:
        return findings
    for name in manifest.compositions:
        where = file.where(("compositions", name))
        findings.extend(check_active(manifest.rules, flatten(manifest, name), ranks, where))
    if manifest.active is not None:
        where = file.where(("active",))
        findings.extend(
            check_active(manifest.rules, flatten(manifest, manifest.active), ranks, where)
        )
    return findings
