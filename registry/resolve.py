"""What a manifest resolves to: sources opened, facts gathered, fit decided, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..manifests.findings import artefacts as codes
from ..manifests.findings import fit as fit_codes
from ..manifests.findings import lock as lock_codes
from ..manifests.findings import sources as source_codes
from ..manifests.findings.errors import AdapterdockError
from ..manifests.findings.finding import Finding, Severity, Where
from ..manifests.language.rules import check_active, flatten
from ..manifests.language.schema import Adapter
from ..manifests.manifest import ManifestFile
from .access import policy as policy_checks
from .access.access import (
    Access,
    AskPeft,
    check_model_signature,
    check_place,
    marks_of,
    open_adapter_folder,
    open_base_folder,
)
from .access.shared_reads import base_key, read_once
from .base.architectures import layout_of
from .checks.candidate import Ask
from .checks.check_adapter import check_adapter
from .checks.fetching import check as check_fetching
from .checks.loaded_as import decide
from .checks.zeros import zeros_in_files
from .files.facts import AdapterFacts, AdapterPlan, BaseFacts, Header, Layout, TensorInfo
from .files.pool import each
from .read_facts import (
    READERS,
    gather_adapter,
    gather_base,
    gather_tokenizer,
    read_tokenizer_files,
    reader_of,
    tokenizer_of,
)
from .recorded_base import names_of_base, recorded_base
from .resolution import Opened, Resolution
from .sources.folder import Folder

if TYPE_CHECKING:
    from .base.fingerprint import Measured

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
"""Codes that do not mean that the source is wrong: it could not be reached."""


def resolve(
    file: ManifestFile,
    access: Access = Access(),  # noqa: B008 - frozen
) -> Resolution:
    """Open every source of ``file``, gather the facts, and decide fit.

    Nothing that a manifest or a file says raises: all of it is in ``findings``.
    """
    access = access.started()
    manifest = file.manifest
    findings: list[Finding] = []
    base_folder, base, tokenizer_files = _open_base(file, access, findings)
    names = list(manifest.adapters)
    # threads help only where there are requests to wait for
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
            return _new_adapter(name, file, access, base)
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
    """Open and read the base alone."""
    findings: list[Finding] = []
    folder, base, tokens = _open_base(file, access, findings)
    wanted = file.manifest.base.model is not None
    return Resolution(
        file, folder, base, {}, tuple(findings), tokens, access.policies, base_wanted=wanted
    )


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
    """Findings where the base that adapters' files record is not the ``measured`` one."""
    from .checks.base_record import check

    file = resolution.file
    found: list[Finding] = []
    for name, opened in resolution.adapters.items():
        if opened.facts is not None and opened.records_base:
            where = file.where(("adapters", name, "source"))
            found += check(opened.facts.header.metadata, measured, where, weights=weights)
    return found


T = TypeVar("T")


def _attempt(act: Callable[[], T], findings: list[Finding], where: Where) -> T | None:
    """``act()``, or ``None`` with its findings noted. A source that cannot be reached is
    *unchecked*, not wrong."""
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


OpenedBase = tuple[Folder | None, BaseFacts | None, Mapping[str, bytes]]
"""The base's folder, what is known of it, and the files of its tokenizer by path."""


def _open_base(file: ManifestFile, access: Access, findings: list[Finding]) -> OpenedBase:
    base = file.manifest.base
    where = file.where(("base", "model"))
    if base.model is None:
        return None, None, {}
    forbidden = check_place(file, None, access, where)
    findings.extend(forbidden)
    if forbidden or access.layout is not None:
        return None, None, {}

    read, key = partial(_read_base, file, access), partial(base_key, file, access)
    noted: list[Finding] = []
    folder, facts, tokens = read_once(access.bases, key, noted, read, where)
    if noted and access.bases is not None and base.model.is_local:
        # a message has the folder as it is spelled in this manifest
        noted.clear()
        spelled = (key(), str(base.model))
        folder, facts, tokens = read_once(access.bases, lambda: spelled, noted, read, where)
    findings.extend(noted)
    return folder, None if facts is None else replace(facts, source=base.model), tokens


def _read_base(file: ManifestFile, access: Access, findings: list[Finding]) -> OpenedBase:
    base = file.manifest.base
    where = file.where(("base", "model"))
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
    """An adapter's config and header; of a new one, the config in the manifest."""
    adapter: Adapter = file.manifest.adapters[name]
    if adapter.source is None:
        return Opened(facts=AdapterFacts(name, None, adapter.config or {}, Header({})))
    findings: list[Finding] = []
    read = partial(_read_source, name, file, access)
    opened = read_once(access.adapters, lambda: (name, repr(access.pins.get(name))), findings, read)
    return replace(opened, findings=tuple(findings))


def _read_source(name: str, file: ManifestFile, access: Access, findings: list[Finding]) -> Opened:
    adapter = file.manifest.adapters[name]
    where = file.where(("adapters", name, "source"))
    findings.extend(check_place(file, name, access, where))
    if findings:
        return Opened()
    if adapter.mutable:
        findings.append(lock_codes.LOCK_MUTABLE.finding(f"Adapter {name!r} is mutable", where))
        findings.extend(policy_checks.check_digest(None, access.policies, name, where))
    folder = _attempt(lambda: open_adapter_folder(file, name, access), findings, where)
    if folder is None:
        return Opened()
    findings.extend(marks_of(file, name, access, folder))
    facts = _attempt(lambda: gather_adapter(name, folder, where, access.headers), findings, where)
    if facts is None:
        return Opened(folder)
    findings.extend(policy_checks.check_size(facts.files, access.policies, name, where))
    findings.extend(check_model_signature(file, name, access, facts.files, folder, complete=False))
    return Opened(folder, facts)


def _check_read(
    name: str, read: Opened, file: ManifestFile, access: Access, base: BaseFacts | None
) -> Opened:
    """The adapter with its plan and whether it fits."""
    folder, facts, findings = read.folder, read.facts, [*read.findings]
    if folder is None or facts is None:
        return read
    where = file.where(("adapters", name, "source"))
    names = names_of_base(file.manifest.base, file.directory, facts.config)
    recorded = recorded_base(facts.config, names)

    is_zero = zeros_in_files(facts, folder.read)
    checked, plan = check_adapter(
        facts,
        base,
        where=where,
        layout=access.layout,
        declared=file.manifest.base.model,
        aliases=names,
        recorded=recorded,
        ask=Ask(
            is_zero=lambda tensor: _attempt(partial(is_zero, tensor), findings, where),
            tokenizer=lambda: _attempt(partial(gather_tokenizer, folder, where), findings, where),
        ),
    )
    if access.ask_peft is not None and plan is not None:
        asked = plan.converted(facts)
        checked = _asked_peft(access.ask_peft, base, asked, plan, checked, where)
    if base is None and access.layout is None and file.manifest.base.model is not None:
        checked = [_with_base_unread(f, name, where) for f in checked]
    findings.extend(checked)
    layout = access.layout or (base.layout if base is not None else None)
    return Opened(folder, facts, plan, tuple(findings), layout)


def _asked_peft(
    ask: AskPeft,
    base: BaseFacts | None,
    facts: AdapterFacts,
    plan: AdapterPlan,
    checked: list[Finding],
    where: Where,
) -> list[Finding]:
    """The findings, with PEFT's answer in place of what only PEFT can check."""
    rest = [f for f in checked if f.code != fit_codes.PEFT_SHAPES_UNCHECKED.id]
    if len(rest) == len(checked) or any(f.severity is Severity.ERROR for f in rest):
        return checked
    said = ask(base, facts, plan, where)
    return checked if said is None else [*rest, *said]


def _new_adapter(name: str, file: ManifestFile, access: Access, base: BaseFacts | None) -> Opened:
    """A new adapter: what its files will hold, and whether that fits."""
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
    """The finding with the reason that the base could not be read, not that none is declared."""
    if finding.code != fit_codes.BASE_UNDECLARED.id:
        return finding
    return codes.BASE_NOT_READ.finding(f"{name} was checked without a base model", where)


def _check_sets(file: ManifestFile, ranks: Mapping[str, int]) -> list[Finding]:
    """The rules, applied to every declared set of adapters."""
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
