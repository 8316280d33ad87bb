"""Bringing what a lock pins onto this machine, verified."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..manifests.findings import lock as codes
from ..manifests.findings.errors import AdapterdockError, IntegrityError, PolicyError, SourceError
from ..manifests.findings.finding import Finding, Severity, Where
from ..manifests.lockfile import Lock, lock_path, read_lock, write_lock
from ..manifests.manifest import ManifestFile
from .access import policy as policy_checks
from .access.access import (
    Access,
    check_model_signature,
    check_place,
    marks_of,
    open_adapter_folder,
    open_base_folder,
)
from .access.session import Session, session_for
from .files.digests import folder_digest
from .files.facts import FileFact
from .files.pool import each
from .files.progress import Progress
from .lock import check_declared_digests, make_lock
from .locks.inputs import LockEntry, new_adapter_digest
from .locks.project import ManifestSource, lock_of, open_manifest
from .locks.state import facts_of, kept, lock_name, overridden, require_lock
from .read_facts import gather_adapter
from .resolution import Opened, Resolution
from .resolve import OPENERS
from .sources.fetch import Fetched, Request, fetch_all
from .store.store import Store
from .unbundling import fill_store


@dataclass(frozen=True)
class Pulled:
    """A manifest whose files are all on this machine and hold what the lock says.

    ``adapters`` and ``base`` map each consumed file to where it is. ``opened`` is what was read of
    adapters, and found to fit, in this call. ``notes`` are warnings, such as that there was no
    lock.
    """

    file: ManifestFile
    lock: Lock
    adapters: Mapping[str, Mapping[str, Fetched]]
    base: Mapping[str, Fetched] = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()
    opened: Mapping[str, Opened] = field(default_factory=dict)


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
    archive: str | os.PathLike[str] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch everything that a manifest needs, verify it against its lock, and keep it in the store.

    Without a lock, sources are resolved as :func:`lock` resolves them, and ``notes`` says so; so is
    a base that ``model`` names in place of the locked one. A base that the lock pins only by
    version gets its sha256 now, and the lock is written again. Files that are here already need no
    network. New adapters have no files. If anything fails, nothing is left half-done.

    Args:
        manifest: The manifest's path, or its data.
        model: Replaces ``base.model`` in this call; a relative path is from the current folder.
        dtype: Replaces ``base.dtype`` in this call.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept.
        frozen: Refuse a missing or partial lock, and mutable adapters. A stale lock is always
            refused.
        offline: Use no network.
        with_base: Whether to fetch the base too.
        archive: A bundle that files come from in place of their sources; no network is used.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched.

    Returns:
        Where each file is, the lock that was obeyed, and warnings.

    Raises:
        ManifestError: The manifest or the policy file is invalid.
        LockError: The lock is stale or cannot be read, or is missing and ``frozen``.
        PolicyError: A policy forbids a source, a digest or a size.
        SourceError, OfflineError: A source cannot be reached or read.
        IntegrityError: A file is not what the lock or the manifest says.
        StoreError: The store cannot be written.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    session = session_for(
        file,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
    )
    if archive is not None:
        return pull_from(file, archive, session, with_base=with_base)
    return pull_file(file, session, with_base=with_base)


def pull_file(file: ManifestFile, session: Session, *, with_base: bool = True) -> Pulled:
    """See :func:`pull`. The session's ``access`` may bring adapters in memory (``in_memory``); its
    ``layout`` and ``base_config`` are the live model's where the caller brings one: the base's
    files are then neither read nor fetched."""
    lock = locked = lock_of(file)
    require_lock(file, locked, frozen=session.frozen)
    require_policy(file, locked, session.access)
    resolution: Resolution | None = None
    if lock is None or overridden(file, lock):
        lock, resolution = make_lock(file, locked, session)
    return pull_pinned(file, lock, session, locked, resolution, with_base=with_base)


def pull_from(
    file: ManifestFile,
    archive: str | os.PathLike[str],
    session: Session,
    *,
    with_base: bool = True,
) -> Pulled:
    """Fill the store from a bundle, and verify everything as :func:`pull` does, without the
    network. What the bundle lacks must be on this machine already."""
    lock = lock_of(file)
    require_lock(file, lock, frozen=session.frozen or lock is None)
    require_policy(file, lock, session.access)
    assert lock is not None
    fill_store(archive, lock, session.store, with_base=with_base, progress=session.progress)
    offline = replace(session.access, offline=True)
    return pull_file(file, replace(session, access=offline), with_base=with_base)


def pull_pinned(
    file: ManifestFile,
    lock: Lock,
    session: Session,
    locked: Lock | None = None,
    resolution: Resolution | None = None,
    *,
    with_base: bool = True,
    only: Collection[LockEntry] | None = None,
) -> Pulled:
    """Fetch and verify what ``lock`` pins for ``file``, whichever lock is beside it now.

    ``only`` are the entries that are fetched, where not all are. ``locked`` is the lock that was
    beside it (it is completed where it is ``lock``), and ``resolution`` what ``lock`` was made
    from, if it was made now. Raises as :func:`pull` does.
    """
    access = replace(session.access, store=session.store).started()
    opened = dict(resolution.adapters) if resolution else {}
    requests = _requests(file, lock, access, opened, resolution, with_base, only)
    too_large = [
        finding
        for name, request in requests.items()
        if name is not None
        for finding in policy_checks.check_size(
            request.wanted, access.policies, name, request.where
        )
    ]
    if too_large:
        raise PolicyError(*too_large)
    results = fetch_all(list(requests.values()), session.store, progress=session.progress)
    fetched = dict(zip(requests, results, strict=True))
    base = fetched.pop(None, {})
    adapters = {name: files for name, files in fetched.items() if name is not None}
    pinned = access.under(lock, kept(file, lock))
    unsigned = [
        finding
        for name, files in adapters.items()
        for finding in check_model_signature(
            file,
            name,
            pinned,
            [one.fact for one in files.values()],
            opened[name].folder,
        )
    ]
    if unsigned:
        raise PolicyError(*unsigned)
    digests = {n: folder_digest(f.fact for f in files.values()) for n, files in adapters.items()}
    wrong = check_declared_digests(file, digests, None if only is None else digests)
    if wrong:
        raise IntegrityError(*wrong)
    completed = _complete(lock, base)
    if lock is locked and completed != lock:
        _write_again(file, lock, completed)
    marked = () if resolution else _marked(file, access, opened)
    notes = (*_notes(file, locked, resolution), *marked)
    return Pulled(file, completed, adapters, base, notes, opened)


def _requests(
    file: ManifestFile,
    lock: Lock,
    access: Access,
    opened: dict[str, Opened],
    resolution: Resolution | None,
    with_base: bool,
    only: Collection[LockEntry] | None,
) -> dict[LockEntry, Request]:
    """The files to fetch, by entry. Folders that are not ``opened`` yet are opened as ``lock`` pins
    them, and added to ``opened``."""
    access = access.under(lock, kept(file, lock))
    requests: dict[LockEntry, Request] = {}
    sources = {name: adapter.source for name, adapter in file.manifest.adapters.items()}
    names = [
        name
        for name, source in sources.items()
        if source is not None and (only is None or name in only)
    ]
    with_base = with_base and (only is None or None in only)

    def open_it(name: str) -> Opened | AdapterdockError:
        try:
            return opened.get(name) or _open_adapter(file, name, access)
        except AdapterdockError as error:
            return error

    found = each(open_it, names, _workers(file, names))
    failed = [one for one in found if isinstance(one, AdapterdockError)]
    for name, one in zip(names, found, strict=True):
        if isinstance(one, Opened):
            opened[name] = one
            requests[name] = _adapter_request(file, name, lock, one)
    if with_base and access.layout is None and lock.base is not None:
        try:
            folder = resolution.base_folder if resolution else open_base_folder(file, access)
        except AdapterdockError as error:
            failed.append(error)
        else:
            if folder is not None:
                wanted = tuple(facts_of(lock.base.files).values())
                requests[None] = Request(folder, wanted, file.where(("base", "model")))
    if failed:
        kinds = {type(error) for error in failed}
        kind = kinds.pop() if len(kinds) == 1 else SourceError
        raise kind(*(f for error in failed for f in error.findings)) from failed[0]
    return requests


def _open_adapter(file: ManifestFile, name: str, access: Access) -> Opened:
    """An adapter's folder. A mutable one is read too, because no lock names its files."""
    folder = open_adapter_folder(file, name, access)
    if not file.manifest.adapters[name].mutable:
        return Opened(folder)
    return Opened(folder, gather_adapter(name, folder, file.where(("adapters", name, "source"))))


def _adapter_request(file: ManifestFile, name: str, lock: Lock, opened: Opened) -> Request:
    assert opened.folder is not None  # an adapter that has a source
    wanted = opened.facts.files if opened.facts else ()
    if not file.manifest.adapters[name].mutable:
        wanted = tuple(facts_of(lock.adapters[name].files).values())
    return Request(opened.folder, wanted, file.where(("adapters", name, "source")))


def require_policy(file: ManifestFile, lock: Lock | None, access: Access) -> None:
    """Raise :class:`PolicyError` where a policy forbids what ``file`` declares, before any source
    is opened. (A policy may have become stricter since the lock was made.)"""
    access = access.under(lock, kept(file, lock)) if lock is not None else access
    findings = check_place(file, None, access, file.where(("base", "model")))
    for name, adapter in file.manifest.adapters.items():
        where = file.where(("adapters", name, "source"))
        entry = lock.adapters.get(name) if lock else None
        digest = adapter.sha256 or (entry.digest if entry else new_adapter_digest(adapter))
        findings += check_place(file, name, access, where)
        findings += policy_checks.check_digest(digest, access.policies, name, where)
        locked: Iterable[FileFact] = facts_of(entry.files).values() if entry else ()
        findings += policy_checks.check_size(locked, access.policies, name, where)
    if findings:
        raise PolicyError(*findings)


def _marked(file: ManifestFile, access: Access, opened: Mapping[str, Opened]) -> Iterable[Finding]:
    """Warnings where a locked version is yanked or deprecated. A registry from which nothing was
    needed is not asked."""

    def marks(name: str) -> list[Finding]:
        folder = opened[name].folder
        return [] if folder is None else marks_of(file, name, access, folder)

    used = [name for name, one in opened.items() if one.folder and one.folder.bytes_read]
    return [finding for found in each(marks, used, _workers(file, used)) for finding in found]


def _workers(file: ManifestFile, names: Iterable[str]) -> int:
    """Threads help only where there are requests to wait for."""
    sources = (file.manifest.adapters[name].source for name in names)
    return OPENERS if any(source is not None and source.is_registry for source in sources) else 1


def _notes(
    file: ManifestFile, locked: Lock | None, resolution: Resolution | None
) -> Iterable[Finding]:
    where = Where(file=lock_name(file))
    if resolution is not None:
        yield from (f for f in resolution.findings if f.severity is Severity.WARNING)
    else:
        for name, adapter in file.manifest.adapters.items():
            if adapter.mutable:
                at = file.where(("adapters", name, "source"))
                yield codes.LOCK_MUTABLE.finding(f"Adapter {name!r} is mutable", at)
    if locked is None and file.file is not None:
        yield codes.NO_LOCK.finding("The manifest was resolved without a lock", where)
    elif locked is not None and resolution is not None:
        yield codes.BASE_OVERRIDDEN.finding(
            "The base is not the locked one",
            where,
            found=file.manifest.base.model,
            expected=locked.base.declared if locked.base else None,
        )


def _complete(lock: Lock, base: Mapping[str, Fetched]) -> Lock:
    """The lock with the sha256 of all base files."""
    if lock.base is None or not base:
        return lock
    files = {
        path: entry
        if entry.sha256 is not None
        else entry.model_copy(update={"sha256": base[path].fact.sha256})
        for path, entry in lock.base.files.items()
    }
    return lock.model_copy(update={"base": lock.base.model_copy(update={"files": files})})


def _write_again(file: ManifestFile, lock: Lock, completed: Lock) -> None:
    """Write the completed lock, unless someone has written another while this one was pulled."""
    if file.file is not None and read_lock(lock_path(file.file)) == lock:
        write_lock(completed, lock_path(file.file))
