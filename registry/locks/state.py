"""Whether a lock was made for this manifest as it is now, and pins all of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ...manifests.findings import lock as codes
from ...manifests.findings.errors import IntegrityError, LockError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Composition
from ...manifests.lockfile import NEW_ADAPTER, Lock, LockedAdapter, LockedFile, lock_path
from ...manifests.manifest import ManifestFile
from ..base.samples import Samples
from ..files.digests import folder_digest
from ..files.facts import FileFact
from .changes import UNNAMED, changes
from .inputs import (
    LockEntry,
    digest_of,
    inputs_digests,
    inputs_digests_with,
    new_adapter_digest,
    options_digests,
    recipe,
)


def overridden(file: ManifestFile, lock: Lock) -> bool:
    """Whether ``lock`` is for this manifest with another base, which ``--model`` replaces."""
    if "model" not in file.overrides or lock.inputs in inputs_digests(file):
        return False
    return lock.inputs in inputs_digests_with(file, lock.base.declared if lock.base else None)


def kept(file: ManifestFile, lock: Lock) -> frozenset[LockEntry]:
    """The entries of ``lock`` that ``file`` still declares, even if others changed."""
    manifest = file.manifest
    entries: set[LockEntry] = set()
    for name, adapter in manifest.adapters.items():
        entry = lock.adapters.get(name)
        if entry is None or entry.mutable or adapter.mutable or adapter.source is None:
            continue
        same = entry.declared == str(adapter.source)
        if adapter.source.is_registry and entry.registry is None:
            continue  # edited by hand
        if same and entry.options in options_digests(file, name):
            entries.add(name)
    base = manifest.base
    if (
        lock.base is not None
        and base.model is not None
        and lock.base.declared == str(base.model)
        and lock.base.options in options_digests(file, None)
    ):
        entries.add(None)
    return frozenset(entries)


def stale(file: ManifestFile, lock: Lock) -> list[Finding]:
    """A finding if ``lock`` was made for other inputs than ``file`` has now."""
    if lock.inputs in inputs_digests(file):
        return []
    return [
        codes.LOCK_STALE.finding(
            "The manifest has changed since it was locked",
            Where(file=lock_name(file)),
            found="; ".join(map(str, changes(file, lock))) or UNNAMED,
            expected="the inputs that the lock was made for",
        )
    ]


def incomplete(file: ManifestFile, lock: Lock) -> list[Finding]:
    """Findings where a current ``lock`` lacks an entry, or has a wrong one: it was edited."""
    where = Where(file=lock_name(file))
    manifest = file.manifest
    findings: list[Finding] = []
    if manifest.base.model is not None and lock.base is None:
        findings.append(codes.LOCK_PARTIAL.finding("The base is not pinned", where))
    for name, adapter in manifest.adapters.items():
        entry = lock.adapters.get(name)
        digest = new_adapter_digest(adapter)
        of_registry = adapter.source is not None and adapter.source.is_registry
        if (
            entry is None
            or entry.mutable != adapter.mutable
            or digest not in (None, entry.digest)
            or (of_registry and entry.registry is None)
        ):
            findings.append(codes.LOCK_PARTIAL.finding(f"Adapter {name!r} is not pinned", where))
    if findings:
        return findings
    for name, composition in manifest.compositions.items():
        recipe = recipe_digest(composition, lock.adapters, manifest.compositions)
        entry = lock.compositions.get(name)
        if entry is None or entry.digest != recipe:
            findings.append(
                codes.LOCK_PARTIAL.finding(
                    f"Composition {name!r} is not pinned as declared",
                    where,
                    found=entry.digest if entry else None,
                    expected=recipe,
                )
            )
    return findings


def unpinned(file: ManifestFile, lock: Lock) -> list[Finding]:
    """A finding if the base is pinned by version only, before the first pull."""
    files = lock.base.files if lock.base else {}
    bare = sorted(path for path, f in files.items() if f.sha256 is None)
    if not bare:
        return []
    return [
        codes.LOCK_PARTIAL.finding(
            "The base is not pinned by content yet",
            Where(file=lock_name(file)),
            found=f"no sha256 for {', '.join(bare[:3])}",
            expected="a sha256 for every file, which the first `adapterdock pull` adds",
        )
    ]


def mutable(file: ManifestFile) -> list[Finding]:
    """Findings for mutable adapters, which ``--frozen`` refuses."""
    return [
        codes.FROZEN_MUTABLE.finding(
            f"Adapter {name!r} is mutable", file.where(("adapters", name, "mutable"))
        )
        for name, adapter in file.manifest.adapters.items()
        if adapter.mutable
    ]


def unsound(lock: Lock, where: Where) -> list[Finding]:
    """Findings where a lock contradicts itself: it was edited or merged by hand."""
    findings = [
        codes.LOCK_UNREADABLE.finding(
            "The lock was edited by hand",
            Where(where.file, ("adapters", name, "digest"), where.line, where.column),
            found=entry.digest or "no digest",
            expected="the digest of the files that it lists",
        )
        for name, entry in lock.adapters.items()
        if not entry.mutable and not is_sound(entry)
    ]
    try:
        if lock.base is not None and lock.base.samples is not None:
            Samples.parse(lock.base.samples)
    except ValueError as error:
        at = Where(where.file, ("base", "samples"), where.line, where.column)
        findings.append(
            codes.LOCK_UNREADABLE.finding("The samples of the lock are damaged", at, found=error)
        )
    return findings


def require_lock(file: ManifestFile, lock: Lock | None, *, frozen: bool) -> None:
    """Raise :class:`LockError` if ``lock`` may not be used for ``file``.

    A stale or incomplete lock may not (except for a base that ``--model`` replaces for one run).
    With ``frozen``, the lock must exist and pin the base by content, and no adapter may be
    mutable.
    """
    findings: list[Finding] = []
    if lock is None:
        if frozen:
            findings.append(
                codes.LOCK_MISSING.finding("The lock is missing", Where(file=lock_name(file)))
            )
    elif frozen or not overridden(file, lock):
        findings.extend(stale(file, lock) or incomplete(file, lock))
        if frozen and not findings:
            findings.extend([*unpinned(file, lock), *mutable(file)])
    if findings:
        raise LockError(*findings)


def recipe_digest(
    composition: Composition,
    adapters: Mapping[str, LockedAdapter],
    compositions: Mapping[str, Composition],
) -> str | None:
    """The digest of a composition's recipe and its members' digests; ``None`` if one is mutable."""
    members: dict[str, str] = {}
    for name in composition.of:
        if name in compositions:
            digest = recipe_digest(compositions[name], adapters, compositions)
        else:
            digest = adapters[name].digest
        if digest is None:
            return None
        members[name] = digest
    return digest_of(recipe(composition, members))


def facts_of(files: Mapping[str, LockedFile]) -> dict[str, FileFact]:
    """The files of a lock as facts."""
    return {p: FileFact(p, f.size, f.sha256, f.version) for p, f in files.items()}


def lock_name(file: ManifestFile) -> str | None:
    """The path of the manifest's lock, which may be absent."""
    return None if file.file is None else str(lock_path(file.file))


def is_sound(entry: LockedAdapter) -> bool:
    """Whether an entry's digest is that of the files that it lists."""
    if entry.declared == NEW_ADAPTER:
        return entry.digest is not None and entry.seed is not None and not entry.files
    try:
        return bool(entry.files) and folder_digest(facts_of(entry.files).values()) == entry.digest
    except IntegrityError:  # a file without a digest, or a path out of the folder
        return False
