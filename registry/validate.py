"""The verdict on a manifest, from configs and headers alone. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..manifests.codes import lock as lock_codes
from ..manifests.errors import AdapterdockError, LockError
from ..manifests.findings import Finding, Report, Where
from ..manifests.lockfile import Lock, lock_path
from ..manifests.manifest import ManifestFile
from . import policy as policy_checks
from .fingerprint import compare
from .lock import measure
from .lock_state import require_lock, stale
from .project import ManifestSource, lock_of, open_manifest, policies_in_force
from .resolve import Access, Resolution, access_under, resolve


def validate(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
) -> Report:
    """Whether every adapter of ``manifest`` fits its base, decided before any download.

    Reads each source's config and safetensors header (range reads), never the weights. What is
    wrong is in the report, all of it; nothing of that raises. A lock beside the manifest that is
    up to date is obeyed, so that the verdict is on what would be loaded; ``accept`` adds to the
    unchecked codes that the lock already accepts. ``frozen`` makes a missing, stale or partial
    lock an error.
    """
    subject = manifest if isinstance(manifest, str | os.PathLike) else "<manifest>"
    try:
        file = open_manifest(manifest, model=model, dtype=dtype)
        policies = policies_in_force(file, policy)
        lock = lock_of(file)
        if frozen:
            require_lock(file, lock, frozen=True)
    except AdapterdockError as error:
        return Report(subject=str(subject), findings=error.findings)
    resolution, lock = resolve_under(file, lock, Access(offline=offline, policies=policies))
    accepted = {*(lock.accepted if lock else ()), *accept}
    report = resolution.report(accepted)
    return report.with_findings(check_fingerprint(resolution) + check_digests(resolution, lock))


def resolve_under(
    file: ManifestFile, lock: Lock | None, access: Access
) -> tuple[Resolution, Lock | None]:
    """The resolution under ``lock``, and the lock if it could be used (a stale one cannot)."""
    if lock is not None and stale(file, lock):
        lock = None
    names = file.manifest.adapters
    return resolve(file, access_under(lock, names, access, base=True)), lock


def check_digests(resolution: Resolution, lock: Lock | None) -> list[Finding]:
    """``require_digest`` of the policies, satisfied by the manifest or by the lock."""
    file = resolution.file
    findings: list[Finding] = []
    for name, adapter in file.manifest.adapters.items():
        entry = lock.adapters.get(name) if lock else None
        digest = adapter.sha256 or (entry.digest if entry else None)
        where = file.where(("adapters", name))
        findings += policy_checks.check_digest(digest, resolution.policies, name, where)
    return findings


def check_fingerprint(resolution: Resolution) -> list[Finding]:
    """The declared fingerprint against the base's files: all levels where they are on this
    machine, else those that config and headers tell (the weights are compared when loaded)."""
    declared = resolution.file.manifest.base.fingerprint
    base, folder = resolution.base, resolution.base_folder
    if declared is None or base is None or folder is None:
        return []
    here = all(folder.local(shard) is not None for shard in base.headers)
    wanted = declared
    if not here:
        wanted = declared.model_copy(update={"weights": None, "head_weights": None})
    measured = measure(resolution, weights=here)
    return compare(wanted, measured, resolution.file.where(("base", "fingerprint")))


def check_lock(
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Report:
    """``lock --check``: whether the lock is there, complete, current, and still holds.

    Everything that ``validate`` says under the lock, plus the digests of local sources.
    """
    file = open_manifest(manifest)
    lock = lock_of(file)
    where = Where(file=None if file.file is None else str(lock_path(file.file)))
    if lock is None:
        return Report(str(file.file), (lock_codes.LOCK_MISSING.finding("there is no lock", where),))
    try:
        require_lock(file, lock, frozen=False)
    except LockError as error:
        return Report(str(file.file), error.findings)
    return validate(file, policy=policy, offline=offline)
