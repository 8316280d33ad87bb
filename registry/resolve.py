"""What a manifest resolves to: sources opened, facts gathered, fit decided, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..manifests.codes import artefacts as codes
from ..manifests.codes import lock as lock_codes
from ..manifests.errors import AdapterdockError, OfflineError
from ..manifests.findings import Finding, Report, Severity, Where
from ..manifests.lockfile import Lock, LockedFile
from ..manifests.manifest import ManifestFile
from ..manifests.rules import check_active, flatten
from ..manifests.schema import Adapter, Base, Policy
from ..manifests.source import Source, SourceSyntaxError
from . import policy as policy_checks
from .checks.recorded_base import recorded_name
from .facts import AdapterFacts, AdapterPlan, BaseFacts, FileFact, Layout
from .fit import check_adapter
from .gather import (
    gather_adapter,
    gather_base,
    gather_tokenizer,
    read_tokenizer_files,
    tokenizer_of,
)
from .sources.folder import Folder
from .sources.open import open_source

OPENERS = 8


@dataclass(frozen=True)
class Opened:
    """One adapter as far as it could be read. ``facts`` is ``None`` where it could not be."""

    folder: Folder | None = None
    facts: AdapterFacts | None = None
    plan: AdapterPlan | None = None
    findings: tuple[Finding, ...] = ()


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


@dataclass(frozen=True)
class Pins:
    """What a lock holds a source to: the Hub's commit, and each file's version, size, digest."""

    revision: str | None = None
    files: Mapping[str, FileFact] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """How sources may be reached in this run."""

    offline: bool = False
    policies: tuple[Policy, ...] = ()
    pins: Mapping[str, Pins] = field(default_factory=dict)
    """Pins by adapter name; the base's are under ``base`` in :attr:`base_pins`."""
    base_pins: Pins | None = None
    given: Mapping[str, Folder] = field(default_factory=dict)
    """Adapters that the caller hands over in memory, in place of their sources."""
    layout: Layout | None = None
    """The live model's, where the caller has one: then the base's own files are not read."""


def resolve(file: ManifestFile, access: Access = Access()) -> Resolution:
    """Open every source of ``file``, gather the facts, and decide fit.

    Nothing raises for what a manifest or an artefact says: it is in ``findings``, all of it.
    """
    manifest = file.manifest
    findings: list[Finding] = []
    base_folder, base, tokenizer_files = _open_base(file, access, findings)
    with ThreadPoolExecutor(OPENERS) as pool:
        opened = dict(
            zip(
                manifest.adapters,
                pool.map(lambda name: _open_adapter(name, file, access, base), manifest.adapters),
                strict=True,
            )
        )
    for one in opened.values():
        findings.extend(one.findings)
    resolution = Resolution(file, base_folder, base, opened, (), tokenizer_files, access.policies)
    findings.extend(_check_sets(file, resolution.ranks))
    return replace(resolution, findings=tuple(_once(findings)))


def resolve_base(file: ManifestFile, access: Access) -> Resolution:
    """The same for the base alone."""
    findings: list[Finding] = []
    folder, base, tokens = _open_base(file, access, findings)
    return Resolution(file, folder, base, {}, tuple(findings), tokens, access.policies)


def open_folder(
    file: ManifestFile,
    source: Source,
    storage_options: Mapping[str, Any],
    access: Access,
    pins: Pins | None,
    where: Where,
) -> Folder:
    """The folder of ``source``, held to ``pins`` where there are some."""
    manifest = file.manifest
    return open_source(
        source,
        directory=file.directory,
        storage_options=storage_options,
        mirrors=manifest.mirrors,
        offline=access.offline,
        revision=pins.revision if pins else None,
        files=pins.files if pins and pins.files else None,
        where=where,
    )


def open_adapter_folder(file: ManifestFile, name: str, access: Access) -> Folder:
    """The folder of one declared adapter."""
    given = access.given.get(name)
    if given is not None:
        return given
    adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))
    pins = access.pins.get(name)
    return open_folder(file, adapter.source, adapter.storage_options, access, pins, where)


def open_base_folder(file: ManifestFile, access: Access) -> Folder | None:
    """The base's folder, or ``None`` where the manifest declares none."""
    base = file.manifest.base
    if base.model is None:
        return None
    where = file.where(("base", "model"))
    return open_folder(file, base.model, base.storage_options, access, access.base_pins, where)


def describe(opened: Opened) -> dict[str, Any]:
    """One adapter's facts as plain data, for reports and for ``show``."""
    if opened.facts is None or opened.folder is None:
        return {}
    facts, plan = opened.facts, opened.plan
    return {
        "source": str(opened.folder.pinned),
        "method": facts.peft_type,
        "rank": plan.rank if plan else None,
        "sites": len(plan.sites) if plan else None,
        "targets": list(targets(plan)) if plan else [],
        "bytes": sum(f.size for f in facts.files),
        "bytes_read": opened.folder.bytes_read,
    }


def targets(plan: AdapterPlan) -> tuple[str, ...]:
    """The adapted modules by their last name: ``q_proj``, ``v_proj``."""
    whole = (*plan.modules, *plan.saved, *plan.embeddings)
    return tuple(sorted({module.rpartition(".")[2] for module in whole}))


def pins_of(revision: str | None, files: Mapping[str, LockedFile]) -> Pins:
    """The pins that one entry of a lock stands for."""
    return Pins(
        revision,
        {p: FileFact(p, f.size, f.sha256, f.version) for p, f in files.items()},
    )


def access_under(lock: Lock | None, names: Iterable[str], access: Access, base: bool) -> Access:
    """``access`` held to the entries ``names`` of ``lock`` (and to its base, if ``base``)."""
    if lock is None:
        return access
    entries = {n: lock.adapters[n] for n in names if n in lock.adapters}
    return replace(
        access,
        pins={n: pins_of(e.revision, e.files) for n, e in entries.items() if not e.mutable},
        base_pins=pins_of(lock.base.revision, lock.base.files) if base and lock.base else None,
    )


T = TypeVar("T")


def _attempt(act: Callable[[], T], findings: list[Finding], where: Where) -> T | None:
    """``act()``, or ``None`` with its findings noted. Out of reach is *unchecked*, not wrong."""
    try:
        return act()
    except OfflineError as error:
        findings.append(
            codes.SOURCE_UNREACHABLE.finding(
                error.findings[0].message,
                where,
                found=error.findings[0].found,
                hint=error.findings[0].hint,
            )
        )
    except AdapterdockError as error:
        findings.extend(error.findings)
    return None


def _open_base(
    file: ManifestFile, access: Access, findings: list[Finding]
) -> tuple[Folder | None, BaseFacts | None, Mapping[str, bytes]]:
    base = file.manifest.base
    where = file.where(("base", "model"))
    if base.model is None or access.layout is not None:
        return None, None, {}
    forbidden = policy_checks.check_base(base.model, access.policies, file.directory, where)
    if forbidden:
        findings.extend(forbidden)
        return None, None, {}
    folder = _attempt(lambda: open_base_folder(file, access), findings, where)
    if folder is None:
        return None, None, {}
    facts = _attempt(
        lambda: gather_base(folder, where, remote_code=base.trust_remote_code), findings, where
    )
    if facts is None:
        return folder, None, {}
    tokens = _attempt(lambda: read_tokenizer_files(folder, where), findings, where) or {}
    known = _attempt(lambda: tokenizer_of(tokens, folder, where), findings, where)
    return folder, replace(facts, tokenizer=known), tokens


def _open_adapter(name: str, file: ManifestFile, access: Access, base: BaseFacts | None) -> Opened:
    adapter: Adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))
    findings = policy_checks.check_source(adapter.source, access.policies, file.directory, where)
    if findings:
        return Opened(findings=tuple(findings))
    if adapter.mutable:
        findings.append(lock_codes.LOCK_MUTABLE.finding(f"adapter {name!r} is mutable", where))
    folder = _attempt(lambda: open_adapter_folder(file, name, access), findings, where)
    if folder is None:
        return Opened(findings=tuple(findings))
    facts = _attempt(lambda: gather_adapter(name, folder, where), findings, where)
    if facts is None:
        return Opened(folder, findings=tuple(findings))
    findings.extend(policy_checks.check_size(facts.files, access.policies, name, where))
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
    if not any(f.severity is Severity.ERROR for f in checked):
        # The vocabulary is read last: a misfit is told from the header alone.
        tokens = _attempt(lambda: gather_tokenizer(folder, where), findings, where)
        if tokens is not None:
            facts = replace(facts, tokenizer=tokens)
            checked, plan = check(facts)
    findings.extend(checked)
    return Opened(folder, facts, plan, tuple(findings))


def recorded_base(config: Mapping[str, Any], names: Collection[str]) -> BaseFacts | None:
    """The base in the local folder that an adapter's config records, if one is still there.

    Not looked for where the recorded name is among ``names``, those of the base in use.
    """
    name = recorded_name(config)
    if name is None or name in names:
        return None
    where = Where(file=name)
    try:
        place = Path(name).expanduser()
        if not place.is_dir():
            return None
        source = Source.parse(str(place.resolve()))
        return gather_base(open_source(source, directory=place, where=where), where)
    except (AdapterdockError, SourceSyntaxError, OSError, RuntimeError, ValueError):
        return None  # then it no longer resolves, which is a finding of its own


def names_of_base(base: Base, directory: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which an adapter may have recorded ``base``: its aliases, and whatever
    path the adapter's ``config`` has for the very folder of a local base."""
    name = recorded_name(config)
    if name is not None and base.model is not None and base.model.is_local:
        try:
            if Path(name).expanduser().resolve() == base.model.local_path(directory).resolve():
                return (*base.aliases, name)
        except (OSError, RuntimeError, ValueError):
            pass  # no path, so not this folder
    return base.aliases


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


def _once(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))
