"""A manifest, the lock beside it and the policies in force, as a command opens them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import LockError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.language.schema import Policy
from ...manifests.lockfile import Lock, is_written, lock_path, read_both_sides, read_lock
from ...manifests.manifest import ManifestFile, read_manifest, read_policy
from .conflict import agreed
from .state import unsound

POLICY_VARIABLE = "ADAPTERDOCK_POLICY"

MANIFEST = "adapterdock.yaml"
"""The manifest's file, where a folder is passed instead."""

ManifestSource = str | os.PathLike[str] | Mapping[str, Any] | ManifestFile
"""A path, a mapping with the manifest's keys, or a manifest already read. The path may be a
folder that ``save_pretrained`` wrote."""


def open_manifest(
    manifest: ManifestSource, *, model: str | None = None, dtype: str | None = None
) -> ManifestFile:
    """The manifest, read and checked. Raises :class:`ManifestError` with all findings, and
    :class:`UsageError` for another ``model`` or ``dtype`` than a manifest was read with."""
    if isinstance(manifest, ManifestFile):
        late = {k: v for k, v in (("model", model), ("dtype", dtype)) if v is not None}
        if any(manifest.overrides.get(key) != value for key, value in late.items()):
            raise UsageError(
                codes.OVERRIDE_TOO_LATE.finding(
                    f"Cannot override {' and '.join(late)} after the manifest was read", found=late
                )
            )
        return manifest
    if isinstance(manifest, str | os.PathLike) and Path(manifest).is_dir():
        manifest = Path(manifest) / MANIFEST
    return read_manifest(manifest, model=model, dtype=dtype)


def policies_in_force(
    file: ManifestFile, policy: str | os.PathLike[str] | None
) -> tuple[Policy, ...]:
    """All policies that apply: the manifest's own, those of the files that it extends, ``policy``
    and ADAPTERDOCK_POLICY."""
    outside = [p for p in (policy, os.environ.get(POLICY_VARIABLE)) if p]
    inside = (file.manifest.policy, *(below.policy for below in file.extended))
    return (*inside, *(read_policy(p) for p in outside))


def lock_of(file: ManifestFile) -> Lock | None:
    """The lock beside the manifest, or ``None``. Raises :class:`LockError` for an invalid one."""
    if file.file is None:
        return None
    path = lock_path(file.file)
    return _require_sound(read_lock(path), path)


def lock_to_replace(file: ManifestFile) -> Lock | None:
    """The lock beside the manifest whose pins the next one keeps, or ``None``.

    Its samples may be missing, and of a lock with a merge conflict it has what both sides agree
    on. Raises :class:`LockError` for an invalid one.
    """
    if file.file is None:
        return None
    path = lock_path(file.file)
    sides = read_both_sides(path)
    if sides is not None:
        return agreed(*sides)
    return _require_sound(read_lock(path, to_replace=True), path)


def is_to_write(file: ManifestFile, old: Lock | None, new: Lock) -> bool:
    """Whether the files beside the manifest are not yet those of ``new``, which replaces ``old``
    of :func:`lock_to_replace`."""
    if file.file is None:
        return False
    return new != old or not is_written(new, lock_path(file.file))


def _require_sound(lock: Lock | None, path: Path) -> Lock | None:
    if lock is not None and (findings := unsound(lock, Where(file=str(path)))):
        raise LockError(*findings)
    return lock
