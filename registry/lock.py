"""Making, checking and comparing locks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
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
)
from ..manifests.manifest import ManifestFile
from ..manifests.schema import Composition
from .digests import folder_digest, sha256_bytes
from .facts import FileFact
from .fetch import Fetched, Request, fetch_all
from .fingerprint import Measured, compare, fingerprint_of
from .gather import READERS, SMALL_FILE, reader_of
from .progress import Progress
from .resolve import Access, Resolution, access_under, resolve, targets
from .store import Store

BASE = "base"
"""What ``--upgrade`` calls the base; it is reserved there only (an adapter may be named so)."""


@dataclass(frozen=True)
class Change:
    """One difference between two locks: what it is about, and both sides (``None``: absent)."""

    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.path}: {self.new}"
        if self.new is None:
            return f"- {self.path}: {self.old}"
        return f"~ {self.path}: {self.old} -> {self.new}"


def inputs_digest(file: ManifestFile) -> str:
    """The digest of everything that resolution depends on, after variables and overrides.

    Comments, descriptions, owners, rules, policy, mirrors and ``active`` are not among it.
    """
    manifest = file.manifest
    base = manifest.base
    inputs = {
        "base": None if base.model is None else str(base.model),
        "base_options": dict(base.storage_options),
        "remote_code": base.trust_remote_code,
        "adapters": {
            name: {
                "source": str(a.source),
                "options": dict(a.storage_options),
                "sha256": a.sha256,
                "mutable": a.mutable,
            }
            for name, a in manifest.adapters.items()
        },
        "compositions": {n: _recipe(c, None) for n, c in manifest.compositions.items()},
        "registries": {n: str(s) for n, s in manifest.registries.items()},
        "overrides": dict(file.overrides),
    }
    return _digest_of(inputs)


def stale(file: ManifestFile, lock: Lock) -> list[Finding]:
    """Findings where ``lock`` was made for other inputs than ``file`` has now."""
    if lock.inputs == inputs_digest(file):
        return []
    manifest = file.manifest
    where = Where(file=_lock_name(file))
    changes: list[str] = []
    declared = None if manifest.base.model is None else str(manifest.base.model)
    locked = lock.base.declared if lock.base else None
    if declared != locked:
        changes.append(f"base.model was {locked}, is {declared}")
    for name in sorted({*manifest.adapters, *lock.adapters}):
        adapter, entry = manifest.adapters.get(name), lock.adapters.get(name)
        if entry is None:
            changes.append(f"adapter {name!r} is new")
        elif adapter is None:
            changes.append(f"adapter {name!r} is gone")
        elif str(adapter.source) != entry.declared:
            changes.append(f"adapter {name!r} was {entry.declared}, is {adapter.source}")
    if sorted(manifest.compositions) != sorted(lock.compositions):
        changes.append("other compositions are declared")
    return [
        codes.LOCK_STALE.finding(
            "the manifest has changed since it was locked",
            where,
            found="; ".join(changes) or "other options, digests, weights or overrides",
            expected="the inputs that the lock was made for",
        )
    ]


def partial(file: ManifestFile, lock: Lock) -> list[Finding]:
    """Findings where an entry or a file's digest is missing, or an adapter is mutable."""
    findings: list[Finding] = []
    where = Where(file=_lock_name(file))
    if file.manifest.base.model is not None:
        files = lock.base.files if lock.base else {}
        bare = sorted(path for path, f in files.items() if f.sha256 is None)
        if lock.base is None or bare:
            findings.append(
                codes.LOCK_PARTIAL.finding(
                    "the base is not pinned by content yet",
                    where,
                    found=f"no sha256 for {', '.join(bare[:3])}" if bare else "no base entry",
                    expected="a sha256 for every file, which the first `adapterdock pull` adds",
                )
            )
    for name, adapter in file.manifest.adapters.items():
        entry = lock.adapters.get(name)
        if adapter.mutable:
            findings.append(
                codes.FROZEN_MUTABLE.finding(
                    f"adapter {name!r} is mutable", file.where(("adapters", name, "mutable"))
                )
            )
        elif entry is None or entry.digest is None:
            findings.append(codes.LOCK_PARTIAL.finding(f"adapter {name!r} is not pinned", where))
    return findings


def require_lock(file: ManifestFile, lock: Lock | None, *, frozen: bool) -> None:
    """Raise :class:`LockError` where ``lock`` may not be used for ``file``.

    A stale lock never is; a missing or partial one is refused when ``frozen``.
    """
    findings: list[Finding] = []
    if lock is None:
        if frozen:
            findings.append(
                codes.LOCK_MISSING.finding("there is no lock", Where(file=_lock_name(file)))
            )
    else:
        findings.extend(stale(file, lock))
        if frozen and not findings:
            findings.extend(partial(file, lock))
    if findings:
        raise LockError(*findings)


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
    accepted = _accepted(old, accept)
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


def check_declared_digests(
    file: ManifestFile, digests: Mapping[str, str | None]
) -> list[Finding]:
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


def diff(old: Lock | None, new: Lock) -> list[Change]:
    """What differs between two locks, in the lock's own order."""
    before = _flat(old.model_dump(mode="json", exclude_none=True)) if old else {}
    after = _flat(new.model_dump(mode="json", exclude_none=True))
    ignored = {"generator", "base.samples"}
    return [
        Change(path, before.get(path), after.get(path))
        for path in sorted({*before, *after} - ignored)
        if before.get(path) != after.get(path)
    ]


def recipe_digest(
    composition: Composition,
    adapters: Mapping[str, LockedAdapter],
    compositions: Mapping[str, Composition],
) -> str | None:
    """The digest of a composition's recipe over its members' digests; none if one is mutable."""
    members: dict[str, str] = {}
    for name in composition.of:
        if name in compositions:
            digest = recipe_digest(compositions[name], adapters, compositions)
        else:
            digest = adapters[name].digest
        if digest is None:
            return None
        members[name] = digest
    return _digest_of(_recipe(composition, members))


def _recipe(composition: Composition, members: Mapping[str, str] | None) -> dict[str, Any]:
    data = composition.model_dump(mode="json", exclude_none=True)
    of = {name: float(weight) for name, weight in composition.of.items()}
    if members is not None:
        data["of"] = sorted([members[name], weight] for name, weight in of.items())
    else:
        data["of"] = of
    return data


def _accepted(old: Lock | None, accept: Iterable[str]) -> set[str]:
    accepted = set(old.accepted if old else ())
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
    return accepted


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
                "a source no longer holds what the lock pinned", Where(file=_lock_name(file))
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
    shown = dict(
        declared=str(adapter.source),
        source=str(opened.folder.pinned),
        method=opened.facts.peft_type or "",
        rank=opened.plan.rank,
        targets=targets(opened.plan),
    )
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


def _flat(data: Any, path: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        flat: dict[str, str] = {}
        for key, value in data.items():
            flat.update(_flat(value, f"{path}.{key}" if path else str(key)))
        return flat
    if isinstance(data, list):
        return {path: ", ".join(map(str, data))} if data else {}
    return {path: str(data)}


def _digest_of(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())


def _lock_name(file: ManifestFile) -> str | None:
    return None if file.file is None else str(lock_path(file.file))


def _generator() -> str:
    from .. import __version__

    return f"adapterdock {__version__}"

