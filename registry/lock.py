"""Making locks: resolve, check, fetch the adapters, pin everything."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..manifests.codes import find_code
from ..manifests.codes import lock as codes
from ..manifests.errors import FingerprintError, FitError, IntegrityError, LockError
from ..manifests.findings import Finding, Severity, Where
from ..manifests.lockfile import (
    Lock,
    LockedAdapter,
    LockedBase,
    LockedComposition,
    LockedFile,
    lock_path,
    write_lock,
)
from ..manifests.manifest import ManifestFile
from .digests import folder_digest
from .facts import FileFact
from .fetch import Fetched, Request, fetch_all
from .fingerprint import Measured, compare, fingerprint_of
from .gather import READERS, SMALL_FILE, reader_of
from .lock_state import inputs_digest, lock_name, recipe_digest
from .progress import Progress
from .project import ManifestSource, lock_of, open_manifest, policies_in_force
from .resolve import Access, Resolution, access_under, resolve, targets
from .store import Store

BASE = "base"
"""What ``--upgrade`` calls the base; it is reserved there only (an adapter may be named so)."""


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
    """Pin everything that ``manifest`` resolves to, and write the lock beside it.

    Pins of entries that did not change are kept; ``upgrade`` names those to move (an adapter, or
    ``base``). A manifest in memory gives a lock that is not written. Raises what
    :func:`make_lock` does, and :class:`ManifestError`; then nothing is written.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    made, _ = make_lock(
        file,
        lock_of(file),
        access=Access(offline=offline, policies=policies_in_force(file, policy)),
        store=store or Store.default(),
        upgrade=upgrade,
        upgrade_all=upgrade_all,
        accept=accept,
        progress=progress,
    )
    if file.file is not None:
        write_lock(made, lock_path(file.file))
    return made


def make_lock(
    file: ManifestFile,
    old: Lock | None,
    *,
    access: Access,
    store: Store,
    upgrade: Collection[str] = (),
    upgrade_all: bool = False,
    accept: Iterable[str] = (),
    progress: Progress | None = None,
) -> tuple[Lock, Resolution]:
    """Resolve ``file``, fetch its adapters, and pin everything. Writes no lock file.

    Pins of ``old`` are kept for every entry whose source is unchanged, except those in
    ``upgrade``. Raises :class:`FitError` for a misfit or something unchecked that ``accept`` (or
    ``old``) does not list, before any weight is downloaded; :class:`IntegrityError` or
    :class:`LockError` where content is not what the manifest or ``old`` says.
    """
    accepted = {*(old.accepted if old else ()), *accepted_codes(accept)}
    kept, keep_base = _kept(file, old, upgrade, upgrade_all)
    access = access_under(old, kept, access, keep_base)
    resolution = resolve(file, access)
    require_fit(resolution, accepted)
    fetched = _fetch(file, resolution, store, access, progress)
    adapters = {
        name: _lock_adapter(file, name, resolution, fetched.get(name, {}))
        for name in file.manifest.adapters
    }
    findings = check_declared_digests(file, {n: a.digest for n, a in adapters.items()})
    if findings:
        raise IntegrityError(*findings)
    base = _lock_base(file, resolution, fetched.get(None, {}))
    lock = Lock(
        generator=_generator(),
        inputs=inputs_digest(file),
        overrides=dict(file.overrides),
        base=base,
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


def require_fit(resolution: Resolution, accepted: Iterable[str]) -> None:
    """Raise :class:`FitError` unless the resolution has no error and nothing unchecked."""
    report = resolution.report(accepted)
    if not report.ok:
        raise FitError(*report.errors, *report.unchecked)


def check_declared_digests(file: ManifestFile, digests: Mapping[str, str | None]) -> list[Finding]:
    """Findings where an adapter's folder digest is not the one that the manifest declares."""
    return [
        codes.DIGEST_MISMATCH.finding(
            f"adapter {name!r} is not the declared one",
            file.where(("adapters", name, "sha256")),
            found=digests.get(name),
            expected=adapter.sha256,
        )
        for name, adapter in file.manifest.adapters.items()
        if adapter.sha256 is not None and digests.get(name) != adapter.sha256
    ]


def accepted_codes(accept: Iterable[str]) -> frozenset[str]:
    """The ids of the codes (or names of codes) in ``accept``. Raises :class:`LockError` for what
    is not the code of an *unchecked* finding."""
    accepted: set[str] = set()
    for text in accept:
        code = find_code(text)
        if code is None or code.severity is not Severity.UNCHECKED:
            raise LockError(
                codes.ACCEPT_NOT_UNCHECKED.finding(
                    f"{text} cannot be accepted",
                    found="no such code" if code is None else f"a code of severity {code.severity}",
                    expected="the code of an unchecked finding",
                )
            )
        accepted.add(code.id)
    return frozenset(accepted)


def _kept(
    file: ManifestFile, old: Lock | None, upgrade: Collection[str], upgrade_all: bool
) -> tuple[list[str], bool]:
    manifest = file.manifest
    unknown = sorted(set(upgrade) - {*manifest.adapters, BASE})
    if unknown:
        raise LockError(
            *(
                codes.UPGRADE_UNKNOWN.finding(
                    f"nothing is named {name!r}",
                    Where(file=file.file),
                    found=name,
                    expected=", ".join([*manifest.adapters, BASE]),
                )
                for name in unknown
            )
        )
    if old is None or upgrade_all:
        return [], False
    names = [
        name
        for name, adapter in manifest.adapters.items()
        if name not in upgrade
        and name in old.adapters
        and old.adapters[name].declared == str(adapter.source)
        and not adapter.mutable
    ]
    keep_base = (
        BASE not in upgrade
        and old.base is not None
        and manifest.base.model is not None
        and old.base.declared == str(manifest.base.model)
    )
    return names, keep_base


def _fetch(
    file: ManifestFile,
    resolution: Resolution,
    store: Store,
    access: Access,
    progress: Progress | None,
) -> dict[str | None, Mapping[str, Fetched]]:
    """Every adapter's files, and of the base what is local or small; ``None`` is the base."""
    requests: dict[str | None, Request] = {}
    for name, opened in resolution.adapters.items():
        if opened.folder is None or opened.facts is None or file.manifest.adapters[name].mutable:
            continue
        pins = access.pins.get(name)
        facts = [_expected(f, pins.files if pins else {}) for f in opened.facts.files]
        where = file.where(("adapters", name, "source"))
        requests[name] = Request(opened.folder, tuple(facts), where)
    if resolution.base is not None and resolution.base_folder is not None:
        folder = resolution.base_folder
        pins = access.base_pins
        facts = [
            _expected(f, pins.files if pins else {})
            for f in resolution.base.files
            if f.size <= SMALL_FILE * 8 or (f.sha256 is None and folder.local(f.path) is not None)
        ]
        requests[None] = Request(folder, tuple(facts), file.where(("base", "model")))
    keys = list(requests)
    try:
        results = fetch_all([requests[k] for k in keys], store, progress=progress)
    except IntegrityError as error:
        if not access.pins and not access.base_pins:
            raise
        raise IntegrityError(
            *error.findings,
            codes.CHANGED_UNDER_LOCK.finding(
                "a source no longer holds what the lock pinned", Where(file=lock_name(file))
            ),
        ) from error
    return dict(zip(keys, results, strict=True))


def _expected(fact: FileFact, pinned: Mapping[str, FileFact]) -> FileFact:
    """The file with the digest that the lock holds it to."""
    pin = pinned.get(fact.path)
    return fact if pin is None or pin.sha256 is None else replace(fact, sha256=pin.sha256)


def _lock_adapter(
    file: ManifestFile, name: str, resolution: Resolution, fetched: Mapping[str, Fetched]
) -> LockedAdapter:
    adapter, opened = file.manifest.adapters[name], resolution.adapters[name]
    assert opened.folder is not None and opened.facts is not None and opened.plan is not None
    shown: dict[str, Any] = {
        "declared": str(adapter.source),
        "source": str(opened.folder.pinned),
        "method": opened.facts.peft_type or "",
        "rank": opened.plan.rank,
        "targets": targets(opened.plan),
    }
    if adapter.mutable:
        return LockedAdapter(**shown, mutable=True)
    facts = [f.fact for f in fetched.values()]
    return LockedAdapter(
        **shown,
        revision=opened.folder.revision,
        digest=folder_digest(facts),
        files=_locked_files(facts),
    )


def _lock_base(
    file: ManifestFile, resolution: Resolution, fetched: Mapping[str, Fetched]
) -> LockedBase | None:
    base, folder = resolution.base, resolution.base_folder
    if base is None or folder is None:
        return None
    where = file.where(("base", "fingerprint"))
    measured = measure(resolution)
    declared = file.manifest.base.fingerprint
    if declared is not None:
        findings = compare(declared, measured, where)
        wrong = [f for f in findings if f.severity is Severity.ERROR]
        if wrong:
            raise FingerprintError(*wrong)
    facts = [fetched[f.path].fact if f.path in fetched else f for f in base.files]
    return LockedBase(
        declared=str(file.manifest.base.model),
        source=str(folder.pinned),
        revision=folder.revision,
        files=_locked_files(facts),
        fingerprint=measured.fingerprint,
        samples=None if measured.samples is None else str(measured.samples),
    )


def measure(resolution: Resolution, *, weights: bool = True) -> Measured:
    """The fingerprint of the resolution's base, ``weights`` included if asked for (a short range
    read of each tensor)."""
    base, folder = resolution.base, resolution.base_folder
    assert base is not None and folder is not None
    here = all(folder.local(shard) is not None for shard in base.headers)
    return fingerprint_of(
        base,
        reader_of(folder) if weights else None,
        resolution.tokenizer_files,
        workers=1 if here else READERS,
    )


def _locked_files(facts: Iterable[FileFact]) -> dict[str, LockedFile]:
    return {
        f.path: LockedFile(size=f.size, sha256=f.sha256, version=f.version)
        for f in sorted(facts, key=lambda f: f.path)
    }


def _generator() -> str:
    from .. import __version__

    return f"adapterdock {__version__}"
