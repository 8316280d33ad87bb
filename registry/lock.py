"""Making locks: resolve, check, fetch the adapters, pin everything."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..manifests.findings import artefacts as artefact_codes
from ..manifests.findings import language as language_codes
from ..manifests.findings import loader as loader_codes
from ..manifests.findings import lock as codes
from ..manifests.findings import registry as registry_codes
from ..manifests.findings import sources as source_codes
from ..manifests.findings import training
from ..manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FingerprintError,
    FitError,
    IntegrityError,
    OfflineError,
    PolicyError,
    SourceError,
    UsageError,
)
from ..manifests.findings.finding import Finding, Severity, Where, refused
from ..manifests.language.names import did_you_mean
from ..manifests.language.source import Source
from ..manifests.lockfile import (
    LOCK_VERSION,
    NEW_ADAPTER,
    Lock,
    LockedAdapter,
    LockedBase,
    LockedComposition,
    LockedEntry,
    LockedFile,
    lock_path,
    write_lock,
)
from ..manifests.manifest import ManifestFile
from .access.access import Access, check_model_signature
from .access.session import Session, session_for
from .base.fingerprint import Measured, compare
from .files.digests import folder_digest
from .files.facts import FileFact
from .files.progress import Progress
from .locks.inputs import (
    LockEntry,
    declared_inputs,
    inputs_digest,
    new_adapter_digest,
    options_digest,
)
from .locks.project import ManifestSource, is_to_write, lock_to_replace, open_manifest
from .locks.state import kept, recipe_digest
from .resolution import Resolution
from .resolve import check_records, measure, resolve
from .sources.fetch import Fetched, Request, fetch_all
from .sources.folder import Folder
from .sources.roads import Road
from .store.store import Store

BASE = "base"
"""The base's name for ``--upgrade``. It is reserved only there: an adapter may have this name."""

HASH_UP_TO = 32 << 20
"""Bytes. A larger file of a base on object storage is not downloaded to be locked: its version
pins it until the first pull adds its sha256."""


def lock(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    upgrade: Collection[str] = (),
    upgrade_all: bool = False,
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Lock:
    """Pin everything that a manifest resolves to, and write the lock beside it.

    Adapters are fetched and hashed; of the base, only what is needed to know its digest. Pins of
    entries that did not change are kept. Nothing is written if anything raises.

    Args:
        manifest: The manifest's path, or its data. The lock of one in memory is not written.
        model: Replaces ``base.model`` in this call; a relative path is from the current folder.
        dtype: Replaces ``base.dtype`` in this call.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept; the lock records them.
        upgrade: Entries to resolve again although the lock pins them: names of adapters, or
            ``base``.
        upgrade_all: Resolve every entry again.
        offline: Use no network.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched.

    Returns:
        The lock.

    Raises:
        ManifestError: The manifest or the policy file is invalid.
        LockError: The lock that is there cannot be read.
        UsageError: ``upgrade`` or ``accept`` has an unknown name.
        FitError: Adapters do not fit, or a check could not run and is not accepted.
        PolicyError, SourceError, OfflineError, FingerprintError: Instead, where all that is wrong
            is of this kind.
        IntegrityError: Files are not what the manifest or the lock says.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    session = session_for(
        file, policy=policy, accept=accept, offline=offline, store=store, progress=progress
    )
    old = lock_to_replace(file)
    made, _ = make_lock(file, old, session, upgrade=upgrade, upgrade_all=upgrade_all)
    if file.file is not None and is_to_write(file, old, made):
        write_lock(made, lock_path(file.file))
    return made


def make_lock(
    file: ManifestFile,
    old: Lock | None,
    session: Session,
    *,
    upgrade: Collection[str] = (),
    upgrade_all: bool = False,
    hash_up_to: int = HASH_UP_TO,
) -> tuple[Lock, Resolution]:
    """Resolve ``file``, fetch its adapters, and pin everything. Writes no lock file.

    Pins of ``old`` are kept for every entry whose source is unchanged, except those in
    ``upgrade``. Without the network, kept entries are read from the session's store.
    Raises, before any weight is downloaded, :class:`UsageError` for unknown names and one error
    with all that is wrong or unchecked and that the session (or ``old``) does not accept:
    :class:`FitError`, or :class:`PolicyError`, :class:`SourceError`, :class:`OfflineError`,
    :class:`FingerprintError` where all of it is of that kind. Raises :class:`IntegrityError`
    where content is not what the manifest or ``old`` says.
    """
    accepted = {*(old.accepted if old else ()), *session.accepted}
    access = session.access.started()
    _require_known(file, upgrade)
    if old is not None:
        moved = {*upgrade} | ({None} if BASE in upgrade else set[LockEntry]())
        access = access.under(old, frozenset() if upgrade_all else kept(file, old) - moved)
    if access.offline:
        access = replace(access, store=session.store)
    resolution = resolve(file, access)
    require_fit(resolution, accepted)
    measured = None
    if resolution.base is not None:
        measured = measure(resolution)
        declared, where = file.manifest.base.fingerprint, file.where(("base", "fingerprint"))
        if declared is not None:
            more = (*resolution.findings, *compare(declared, measured, where))
            resolution = replace(resolution, findings=more)
            require_fit(resolution, accepted)
        if any(one.records_base for one in resolution.adapters.values()):
            more = (*resolution.findings, *check_records(resolution, measured))
            resolution = replace(resolution, findings=more)
            require_fit(resolution, accepted)
    fetched = _fetch(file, resolution, session.store, hash_up_to, session.progress)
    _require_signed(file, resolution, replace(access, store=session.store), fetched)
    adapters = {
        name: _lock_adapter(file, name, resolution, fetched.get(name, {}), old)
        for name in file.manifest.adapters
    }
    findings = check_declared_digests(file, {n: a.digest for n, a in adapters.items()})
    if findings:
        raise IntegrityError(*findings)
    lock = Lock(
        version=LOCK_VERSION,
        generator=_generator(),
        inputs=inputs_digest(file),
        declared=declared_inputs(file),
        overrides=dict(file.overrides),
        base=None
        if measured is None
        else _lock_base(file, resolution, measured, fetched[None], old),
        adapters=adapters,
        compositions={
            name: LockedComposition(
                combine=c.combine, digest=recipe_digest(c, adapters, file.manifest.compositions)
            )
            for name, c in file.manifest.compositions.items()
        },
        accepted=tuple(sorted(accepted & {f.code for f in resolution.findings})),
    )
    return lock, resolution


def _require_signed(
    file: ManifestFile,
    resolution: Resolution,
    access: Access,
    fetched: Mapping[LockEntry, Mapping[str, Fetched]],
) -> None:
    """Raise :class:`PolicyError` where a policy requires a ``model.sig``, and it is not of the
    files that were fetched: now all their digests are known."""
    findings = [
        finding
        for name, files in fetched.items()
        if name is not None and files
        for finding in check_model_signature(
            file,
            name,
            access,
            [one.fact for one in files.values()],
            resolution.adapters[name].folder,
        )
    ]
    if findings:
        raise PolicyError(*findings)


def require_fit(resolution: Resolution, accepted: Collection[str]) -> None:
    """Raise one error with every error, and everything unchecked, of ``resolution``.

    What is unchecked and ``accepted`` passes, unless because of it something was not read.
    """
    wrong = refused(resolution.findings, accepted)
    if not wrong and not resolution.complete:
        wrong = refused(resolution.findings)
    if wrong:
        raise _refusal(wrong)


def check_declared_digests(
    file: ManifestFile, digests: Mapping[str, str | None], names: Iterable[str] | None = None
) -> list[Finding]:
    """Findings where an adapter's folder digest is not the one that the manifest declares, for
    all adapters or those of ``names``."""
    return [
        finding
        for name in (file.manifest.adapters if names is None else names)
        for finding in _check_declared(file, name, digests.get(name))
    ]


def _check_declared(file: ManifestFile, name: str, digest: str | None) -> list[Finding]:
    declared = file.manifest.adapters[name].sha256
    if declared in (None, digest):
        return []
    return [
        codes.DIGEST_MISMATCH.finding(
            f"Adapter {name!r} has another digest than the manifest declares",
            file.where(("adapters", name, "sha256")),
            found=digest,
            expected=declared,
        )
    ]


def _refusal(findings: Collection[Finding]) -> AdapterdockError:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    kinds = {_kind_of(finding.code) for finding in errors or findings}
    if kinds == {OfflineError, SourceError}:
        kinds = {SourceError}
    return (kinds.pop() if len(kinds) == 1 else FitError)(*findings)


def _kind_of(code: str) -> type[AdapterdockError]:
    for start, kind in _KINDS:
        if code.startswith(start):
            return kind
    return FitError


_KINDS: tuple[tuple[str, type[AdapterdockError]], ...] = (
    (artefact_codes.SOURCE_UNREACHABLE.id, OfflineError),
    (artefact_codes.BASE_NOT_READ.id, OfflineError),
    (training.NEW_UNPLACED.id, FitError),
    (loader_codes.REMOTE_CODE_ELSEWHERE.id, AttachError),
    (source_codes.CREDENTIALS_WITHHELD.id, SourceError),
    ("AD2", SourceError),
    ("AD4", FingerprintError),
    (codes.CHANGED_UNDER_LOCK.id, IntegrityError),
    (language_codes.UNKNOWN_REGISTRY.id, UsageError),
    (registry_codes.ENTRY_INVALID.id, IntegrityError),
    (registry_codes.HISTORY_BROKEN.id, IntegrityError),
    (registry_codes.ANOTHER_REGISTRY.id, IntegrityError),
    *((start, SourceError) for start in ("AD860", "AD861", "AD865", "AD87", "AD893")),
    ("AD8", PolicyError),
)


def _require_known(file: ManifestFile, upgrade: Collection[str]) -> None:
    known = [*file.manifest.adapters, BASE]
    unknown = sorted(set(upgrade) - {*known})
    if unknown:
        raise UsageError(
            *(
                codes.UPGRADE_UNKNOWN.finding(
                    f"The manifest has no adapter {name!r} to upgrade",
                    Where(file=file.file),
                    found=name,
                    expected=", ".join(known),
                    hint=did_you_mean(name, known),
                )
                for name in unknown
            )
        )


def _fetch(
    file: ManifestFile,
    resolution: Resolution,
    store: Store,
    hash_up_to: int,
    progress: Progress | None,
) -> dict[LockEntry, Mapping[str, Fetched]]:
    """Every adapter's files, and of the base what must be read to know its digest."""
    requests: dict[LockEntry, Request] = {}
    for name, opened in resolution.adapters.items():
        if opened.folder is None or opened.facts is None or file.manifest.adapters[name].mutable:
            continue
        where = file.where(("adapters", name, "source"))
        check = None
        if file.manifest.adapters[name].sha256 is not None:
            check = partial(_check_files, file, name)
        requests[name] = Request(opened.folder, opened.facts.files, where, check)
    base, folder = resolution.base, resolution.base_folder
    if base is not None and folder is not None:
        wanted = tuple(f for f in base.files if _is_hashed_now(f, folder, hash_up_to))
        requests[None] = Request(folder, wanted, file.where(("base", "model")))
    fetched = fetch_all(list(requests.values()), store, progress=progress)
    return dict(zip(requests, fetched, strict=True))


def _check_files(file: ManifestFile, name: str, files: Iterable[FileFact]) -> list[Finding]:
    return _check_declared(file, name, folder_digest(files))


def _is_hashed_now(fact: FileFact, folder: Folder, limit: int) -> bool:
    if folder.source.is_local:
        return True  # it is here, and what is remembered of it costs nothing
    return fact.sha256 is None and (fact.size <= limit or folder.local(fact.path) is not None)


def _lock_adapter(
    file: ManifestFile,
    name: str,
    resolution: Resolution,
    fetched: Mapping[str, Fetched],
    old: Lock | None,
) -> LockedAdapter:
    adapter, opened = file.manifest.adapters[name], resolution.adapters[name]
    assert opened.facts is not None and opened.plan is not None
    if adapter.config is not None:
        return LockedAdapter(
            declared=NEW_ADAPTER,
            source=NEW_ADAPTER,
            method=opened.facts.peft_type or "",
            rank=opened.plan.rank,
            targets=opened.plan.targets,
            digest=new_adapter_digest(adapter),
            seed=adapter.seed or 0,
        )
    assert opened.folder is not None
    shown: dict[str, Any] = {
        "declared": str(adapter.source),
        "options": options_digest(file, name),
        "source": str(opened.folder.pinned),
        "method": opened.facts.peft_type or "",
        "rank": opened.plan.rank,
        "targets": opened.plan.targets,
    }
    if adapter.mutable:
        return LockedAdapter(**shown, mutable=True)
    facts = [f.fact for f in fetched.values()]
    digest = folder_digest(facts)
    before = old.adapters.get(name) if old else None
    same = before is not None and before.digest == digest and before.source == shown["source"]
    return LockedAdapter(
        **shown,
        revision=opened.folder.revision,
        fetched_from=before.fetched_from
        if before is not None and same
        else _end_of_road(file, adapter.source, adapter.storage_options, opened.folder),
        digest=digest,
        files=_with_versions(_locked_files(facts), before.files if before and same else {}),
        registry=_locked_entry(opened.folder, before),
    )


def _locked_entry(folder: Folder, before: LockedAdapter | None) -> LockedEntry | None:
    """What pins a registry source. A folder that is read from the store is as it was locked."""
    if not folder.source.is_registry:
        return None
    from .access.published import PublishedFolder

    if isinstance(folder, PublishedFolder):
        return folder.locked()
    return None if before is None else before.registry


def _lock_base(
    file: ManifestFile,
    resolution: Resolution,
    measured: Measured,
    fetched: Mapping[str, Fetched],
    old: Lock | None,
) -> LockedBase:
    base, folder, declared = resolution.base, resolution.base_folder, file.manifest.base
    assert base is not None and folder is not None
    facts = [fetched[f.path].fact if f.path in fetched else f for f in base.files]
    before = old.base if old else None
    files = _with_versions(_locked_files(facts), before.files if before is not None else {})
    same = before is not None and before.files == files and before.source == str(folder.pinned)
    return LockedBase(
        declared=str(declared.model),
        options=options_digest(file, None),
        source=str(folder.pinned),
        revision=folder.revision,
        fetched_from=before.fetched_from
        if before is not None and same
        else _end_of_road(file, declared.model, declared.storage_options, folder),
        files=files,
        fingerprint=measured.fingerprint,
        samples=None if measured.samples is None else str(measured.samples),
        loaded_as=base.loaded_as,
    )


def _with_versions(
    files: Mapping[str, LockedFile], before: Mapping[str, LockedFile]
) -> Mapping[str, LockedFile]:
    """The files, with the versions that were locked where the same content has none now: it was
    read from a mirror."""
    return {
        path: file.model_copy(update={"version": before[path].version})
        if file.version is None
        and file.sha256 is not None
        and path in before
        and before[path].sha256 == file.sha256
        else file
        for path, file in files.items()
    }


def _end_of_road(
    file: ManifestFile, source: Source | None, options: Mapping[str, Any], folder: Folder
) -> str | None:
    """Where files that are locked now came from. (Files that were locked before keep the record of
    that time, even if an endpoint has moved since.)"""
    assert source is not None
    return Road.of(file, source, options, folder.revision).end


def _locked_files(facts: Iterable[FileFact]) -> dict[str, LockedFile]:
    return {
        f.path: LockedFile(size=f.size, sha256=f.sha256, version=f.version)
        for f in sorted(facts, key=lambda f: f.path)
    }


def _generator() -> str:
    from .. import __version__

    return f"adapterdock {__version__}"
