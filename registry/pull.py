"""Bringing what a lock pins onto this machine, verified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..manifests.codes import lock as codes
from ..manifests.errors import IntegrityError, LockError, PolicyError
from ..manifests.findings import Finding, Where
from ..manifests.lockfile import Lock, LockedFile, lock_path, write_lock
from ..manifests.manifest import ManifestFile
from . import policy as policy_checks
from .digests import folder_digest
from .facts import FileFact, Layout
from .fetch import Fetched, Request, fetch_all
from .gather import gather_adapter
from .lock import check_declared_digests, make_lock
from .lock_state import require_lock
from .progress import Progress
from .project import ManifestSource, lock_of, open_manifest, policies_in_force
from .resolve import Access, access_under, open_adapter_folder, open_base_folder
from .sources.folder import Folder
from .store import Store


@dataclass(frozen=True)
class Pulled:
    """A manifest whose files are all on this machine and hold what the lock says.

    ``adapters`` and ``base`` map each consumed file to where it is. ``notes`` are warnings, such
    as that there was no lock.
    """

    file: ManifestFile
    lock: Lock
    adapters: Mapping[str, Mapping[str, Fetched]]
    base: Mapping[str, Fetched] = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()


def pull(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    with_base: bool = True,
    given: Mapping[str, Folder] | None = None,
    layout: Layout | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch everything ``manifest`` needs, verify it against its lock, publish it in the store.

    Without a lock it is resolved as ``lock`` would, and ``notes`` says so. A base that the lock
    pins by version only gets its sha256 now, and the lock is written again. ``frozen`` refuses a
    missing or partial lock and mutable adapters; a stale lock is always refused. ``offline``
    touches no network. ``given`` are adapters handed over in memory, by name. ``layout`` is the
    live model's where the caller brings one: the base's files are then neither read nor fetched.
    Raises the errors of :mod:`adapterdock.manifests.errors`; what fails leaves nothing half-done.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    policies = policies_in_force(file, policy)
    store = store or Store.default()
    access = Access(offline=offline, policies=policies, given=given or {}, layout=layout)
    lock = lock_of(file)
    require_lock(file, lock, frozen=frozen)
    notes: list[Finding] = []
    if lock is None:
        lock, resolution = make_lock(
            file, None, access=access, store=store, accept=accept, progress=progress
        )
        notes += [f for f in resolution.findings if f.severity.value == "warning"]
        if file.file is not None:
            where = Where(file=str(lock_path(file.file)))
            notes.append(codes.NO_LOCK.finding("resolved without a lock", where))
    else:
        _require_policy(file, lock, access)
    access = access_under(lock, file.manifest.adapters, access, base=True)
    requests = _adapter_requests(file, lock, access)
    if with_base and layout is None and lock.base is not None:
        folder = open_base_folder(file, access)
        if folder is not None:
            wanted = tuple(facts_of(lock.base.files))
            requests[None] = Request(folder, wanted, file.where(("base", "model")))
    keys = list(requests)
    try:
        fetched = dict(
            zip(keys, fetch_all([requests[k] for k in keys], store, progress=progress), strict=True)
        )
    except IntegrityError as error:
        raise IntegrityError(
            *error.findings,
            codes.CHANGED_UNDER_LOCK.finding(
                "a source no longer holds what the lock pinned", Where(file=file.file)
            ),
        ) from error
    base = fetched.pop(None, {})
    adapters = {name: files for name, files in fetched.items() if name is not None}
    _require_digests(file, lock, adapters)
    completed = _complete(lock, base)
    if completed != lock:
        lock = completed
        if file.file is not None and lock_path(file.file).exists():
            write_lock(lock, lock_path(file.file))
    return Pulled(file, lock, adapters, base, tuple(notes))


def facts_of(files: Mapping[str, LockedFile]) -> list[FileFact]:
    """The lock's files as what is to be fetched."""
    return [FileFact(p, f.size, f.sha256, f.version) for p, f in files.items()]


def _adapter_requests(file: ManifestFile, lock: Lock, access: Access) -> dict[str | None, Request]:
    requests: dict[str | None, Request] = {}
    for name, adapter in file.manifest.adapters.items():
        where = file.where(("adapters", name, "source"))
        folder = open_adapter_folder(file, name, access)
        if adapter.mutable:
            wanted = list(gather_adapter(name, folder, where).files)
        else:
            wanted = facts_of(lock.adapters[name].files)
        requests[name] = Request(folder, tuple(wanted), where)
    return requests


def _require_policy(file: ManifestFile, lock: Lock, access: Access) -> None:
    """A policy may have been tightened since the lock was made: it binds at pull too."""
    base = file.manifest.base.model
    findings: list[Finding] = []
    if base is not None:
        findings += policy_checks.check_base(
            base, access.policies, file.directory, file.where(("base", "model"))
        )
    for name, adapter in file.manifest.adapters.items():
        where = file.where(("adapters", name, "source"))
        entry = lock.adapters[name]
        findings += policy_checks.check_source(
            adapter.source, access.policies, file.directory, where
        )
        findings += policy_checks.check_size(facts_of(entry.files), access.policies, name, where)
        findings += policy_checks.check_digest(
            adapter.sha256 or entry.digest, access.policies, name, where
        )
    if findings:
        raise PolicyError(*findings)


def _require_digests(
    file: ManifestFile, lock: Lock, adapters: Mapping[str, Mapping[str, Fetched]]
) -> None:
    digests = {n: folder_digest(f.fact for f in files.values()) for n, files in adapters.items()}
    findings = check_declared_digests(file, digests)
    for name, digest in digests.items():
        entry = lock.adapters[name]
        if not entry.mutable and entry.digest != digest:
            findings.append(
                codes.CHANGED_UNDER_LOCK.finding(
                    f"adapter {name!r} is not the locked one",
                    file.where(("adapters", name, "source")),
                    found=digest,
                    expected=entry.digest,
                )
            )
    if findings:
        raise LockError(*findings)


def _complete(lock: Lock, base: Mapping[str, Fetched]) -> Lock:
    """The lock with the sha256 of every base file that had none."""
    if lock.base is None or not base:
        return lock
    files = {
        path: entry
        if entry.sha256 is not None
        else entry.model_copy(update={"sha256": base[path].fact.sha256})
        for path, entry in lock.base.files.items()
    }
    return lock.model_copy(update={"base": lock.base.model_copy(update={"files": files})})
