"""Whether a manifest is right, from configs and headers alone. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..manifests.findings import lock as codes
from ..manifests.findings.errors import AdapterdockError
from ..manifests.findings.finding import Finding, Report, Where
from ..manifests.lockfile import Lock
from ..manifests.manifest import ManifestFile
from .access import policy as policy_checks
from .access.access import Access, AskLayout, AskPeft, open_adapter_folder, open_base_folder
from .access.shared_reads import Reads
from .locks.inputs import new_adapter_digest
from .locks.project import ManifestSource, lock_of, open_manifest, policies_in_force
from .locks.state import (
    facts_of,
    incomplete,
    kept,
    lock_name,
    require_lock,
    stale,
    unpinned,
)
from .resolution import Resolution
from .resolve import check_records, measure, resolve
from .sources.open import is_offline

if TYPE_CHECKING:
    from .base.fingerprint import Measured


def validate(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    ask: AskLayout | None = None,
    ask_peft: AskPeft | None = None,
    also: Callable[[Resolution], Iterable[Finding]] | None = None,
    reads: Reads | None = None,
) -> Report:
    """Whether every adapter of a manifest fits its base, decided before any download.

    Reads each source's config and safetensors header (by range), never the weights. A lock beside
    the manifest is obeyed, so that the verdict is on what would be loaded; entries that changed
    since are resolved as :func:`lock` would.

    The public function is ``serving.validate``'s, which says what the other arguments are.

    Args:
        manifest: The manifest's path, or its data.
        also: Returns more findings on what was read, such as what an engine cannot serve.
        reads: What manifests that are checked in the same command have read.

    Returns:
        The report, with everything that is wrong. Nothing that is wrong raises.
    """
    try:
        file = open_manifest(manifest, model=model, dtype=dtype)
        policies = policies_in_force(file, policy)
        lock = lock_of(file)
        if frozen:
            require_lock(file, lock, frozen=True)
        accepted = {*(lock.accepted if lock else ()), *_accepted(accept)}
        access = Access(offline=offline, policies=policies, ask=ask, ask_peft=ask_peft)
        access = access.started() if reads is None else reads.share(access, file)
        resolution = resolve_under(file, lock, access)
        report = _report(resolution, lock, accepted, access)
        return report if also is None else report.with_findings(also(resolution))
    except AdapterdockError as error:
        return Report(subject=subject_of(manifest), findings=error.findings)


def resolve_under(file: ManifestFile, lock: Lock | None, access: Access) -> Resolution:
    """The resolution under ``lock``. Entries that changed in ``file`` since are resolved again, and
    a finding says so. The others are read from the store if they are there."""
    if lock is None:
        return resolve(file, access)
    access = _with_store(access)
    resolution = resolve(file, access.under(lock, kept(file, lock)))
    findings = [
        codes.STALE_LOCK_UNUSED.finding(f.message, f.where, found=f.found)
        for f in stale(file, lock)
    ]
    return replace(resolution, findings=(*resolution.findings, *findings))


def _with_store(access: Access) -> Access:
    from .store.store import Store

    return replace(access, store=access.store or Store.default())


def check_lock(
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
    reads: Reads | None = None,
) -> Report:
    """``lock --check``: whether there is a lock, and it is complete, current and still true.

    It has every finding of :func:`validate`, from the sources and not from the store, and hashes
    local files that changed. Offline, what was pulled is read from the store. Nothing that is wrong
    raises.
    """
    try:
        file = open_manifest(manifest)
        access = Access(offline=offline, policies=policies_in_force(file, policy))
        access = access.started() if reads is None else reads.share(access, file)
        lock = lock_of(file)
        if lock is None:
            missing = codes.LOCK_MISSING.finding("The lock is missing", Where(file=lock_name(file)))
            return Report(subject_of(manifest), (missing,))
        wrong = stale(file, lock) or incomplete(file, lock) or unpinned(file, lock)
        if wrong:
            return Report(subject_of(manifest), tuple(wrong))
        if offline or is_offline():  # all there is to compare with is what was pulled
            access = _with_store(access)
        access = access.under(lock, kept(file, lock))
        report = _report(resolve(file, access), lock, {*lock.accepted}, access)
        return report.with_findings(() if report.errors else _local_changes(file, lock, access))
    except AdapterdockError as error:
        return Report(subject_of(manifest), error.findings)


def _report(
    resolution: Resolution, lock: Lock | None, accepted: Iterable[str], access: Access
) -> Report:
    report = resolution.report(accepted).with_findings(resolution.file.warnings)
    more = [*_fingerprint(resolution, access), *_records(resolution, access)]
    return report.with_findings([*more, *_digests(resolution, lock)])


def _digests(resolution: Resolution, lock: Lock | None) -> list[Finding]:
    """``require_digest`` of the policies: the manifest or the lock must have the digest."""
    file = resolution.file
    entries = kept(file, lock) if lock else frozenset[str | None]()
    findings: list[Finding] = []
    for name, adapter in file.manifest.adapters.items():
        held = lock is not None and name in entries
        locked = lock.adapters[name].digest if lock and held else new_adapter_digest(adapter)
        where = file.where(("adapters", name, "source"))
        findings += policy_checks.check_digest(
            adapter.sha256 or locked, resolution.policies, name, where
        )
    return [f for f in findings if f not in resolution.findings]


def _measure(resolution: Resolution, access: Access, *, weights: bool) -> Measured:
    """The fingerprint of the base: measured once for all manifests that share what was read."""
    if access.bases is None or resolution.base is None:
        return measure(resolution, weights=weights)
    key = ("measured", id(resolution.base.headers), weights)  # `bases` keeps these headers
    return access.bases.once(key, lambda: measure(resolution, weights=weights))


def _fingerprint(resolution: Resolution, access: Access) -> Iterable[Finding]:
    """The declared fingerprint, compared with the base's files: all levels if they are on this
    machine, otherwise those of config and headers (``lock`` compares the weights)."""
    declared = resolution.file.manifest.base.fingerprint
    if declared is None or resolution.base is None:
        return []
    from .base.fingerprint import compare

    try:
        here = resolution.base_is_here
        measured = _measure(resolution, access, weights=here)
    except AdapterdockError as error:
        return error.findings
    if not here:
        declared = declared.model_copy(update={"weights": None, "head_weights": None})
    return compare(declared, measured, resolution.file.where(("base", "fingerprint")))


def _records(resolution: Resolution, access: Access) -> Iterable[Finding]:
    """The base that adapters' files record, compared with the base's files: with its weights if
    they are on this machine (``lock`` and loading always compare them)."""
    recorded = any(one.records_base for one in resolution.adapters.values())
    if resolution.base is None or not recorded:
        return []
    try:
        here = resolution.base_is_here
        measured = _measure(resolution, access, weights=here)
        return check_records(resolution, measured, weights=here)
    except AdapterdockError as error:
        return error.findings


def _local_changes(file: ManifestFile, lock: Lock, access: Access) -> Iterable[Finding]:
    """Findings where a file in a local folder has another content than ``lock`` says."""
    from .sources.fetch import Request, fetch_all
    from .store.store import Store

    requests: list[Request] = []
    for name, adapter in file.manifest.adapters.items():
        if adapter.source is not None and adapter.source.is_local and not adapter.mutable:
            files = tuple(facts_of(lock.adapters[name].files).values())
            where = file.where(("adapters", name, "source"))
            requests.append(Request(open_adapter_folder(file, name, access), files, where))
    model = file.manifest.base.model
    if lock.base is not None and model is not None and model.is_local:
        folder = open_base_folder(file, access)
        assert folder is not None
        files = tuple(facts_of(lock.base.files).values())
        requests.append(Request(folder, files, file.where(("base", "model"))))
    try:
        fetch_all(requests, Store.default())
    except AdapterdockError as error:
        return error.findings
    return []


def _accepted(accept: Iterable[str]) -> frozenset[str]:
    codes_given = tuple(accept)
    if not codes_given:
        return frozenset()
    from .access.session import accepted_codes

    return accepted_codes(codes_given)


def subject_of(manifest: ManifestSource) -> str:
    """What a report on ``manifest`` is about."""
    if isinstance(manifest, ManifestFile):
        return manifest.file or "<manifest>"
    return str(manifest) if isinstance(manifest, str | os.PathLike) else "<manifest>"
