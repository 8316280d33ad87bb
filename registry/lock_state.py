"""Whether a lock is for this manifest as it is now, and whether it pins all of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..manifests.codes import lock as codes
from ..manifests.errors import LockError
from ..manifests.findings import Finding, Where
from ..manifests.lockfile import Lock, LockedAdapter, lock_path
from ..manifests.manifest import ManifestFile
from ..manifests.schema import Composition
from .digests import sha256_bytes


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
    where = Where(file=lock_name(file))
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
    where = Where(file=lock_name(file))
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
                codes.LOCK_MISSING.finding("there is no lock", Where(file=lock_name(file)))
            )
    else:
        findings.extend(stale(file, lock))
        if frozen and not findings:
            findings.extend(partial(file, lock))
    if findings:
        raise LockError(*findings)


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


def _digest_of(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())


def lock_name(file: ManifestFile) -> str | None:
    """Where the manifest's lock is, or would be."""
    return None if file.file is None else str(lock_path(file.file))
