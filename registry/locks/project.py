"""A manifest, the lock beside it and the policies in force, as a command opens them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...manifests.find import SUFFIXES, is_manifest
from ...manifests.findings import lock as lock_codes
from ...manifests.findings import usage as codes
from ...manifests.findings.errors import LockError, UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import is_name
from ...manifests.language.schema import Policy
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.lockfile import (
    LOCK_SUFFIX,
    Lock,
    is_written,
    lock_path,
    manifest_path,
    read_both_sides,
    read_lock,
)
from ...manifests.manifest import ManifestFile, read_manifest, read_policy
from ..files.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
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
    if isinstance(manifest, str | os.PathLike):
        named = Path(manifest)
        folder = named if named.is_dir() else None
        if named.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):  # one of its files means the same
            folder = named.parent
        if folder is not None and (adapter := adapter_as_manifest(folder)) is not None:
            raise UsageError(adapter)
        if folder is None and (found := _lock_as_manifest(named)) is not None:
            raise UsageError(found)
        manifest = named / MANIFEST if folder is named else manifest
    return read_manifest(manifest, model=model, dtype=dtype)


def _lock_as_manifest(path: Path) -> Finding | None:
    """What to do with a lock, where a manifest was expected; ``None`` for any other file."""
    if path.suffix != LOCK_SUFFIX or not path.is_file():
        return None
    manifest, where = manifest_path(path), Where(file=str(path))
    if manifest is not None:
        message, hint = "This is a lock, not a manifest", f"Name its manifest: {manifest}"
        return codes.NO_SUCH_FILE.finding(message, where, hint=hint)
    return codes.NO_SUCH_FILE.finding(
        "There is no manifest beside this lock",
        where,
        expected=f"{path.stem}.yaml",
        hint="Restore the manifest, or delete the lock and its samples.",
    )


def adapter_as_manifest(folder: Path) -> Finding | None:
    """What to do with an adapter's folder, where a manifest was expected; ``None`` for any other
    folder."""
    if (folder / MANIFEST).is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return None
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError):
        config = {}
    fields = cast("dict[str, Any]", config) if isinstance(config, dict) else {}
    named, name = fields.get("base_model_name_or_path"), folder.resolve().name
    lines = (
        "version: 1",
        f"base: {{model: {_plain(_base_source(named))}}}",
        f"adapters: {{{name if is_name(name) else 'adapter'}: "
        f"{{source: {_plain(str(folder.resolve()))}}}}}",
    )
    return codes.ADAPTER_AS_MANIFEST.finding(
        f"{folder} is the folder of an adapter, not a manifest",
        Where(file=str(folder / ADAPTER_CONFIG)),
        found=ADAPTER_CONFIG,
        expected=f"a manifest, or a folder with {MANIFEST}",
        hint="To see which bases it fits, run `adapterdock matrix FOLDER --base BASE`. On a loaded "
        "model, call `AdaptedModel.from_pretrained(model, folder)`. For `load`, write a manifest:\n"
        + "\n".join(lines),
    )


def _base_source(named: object) -> str:
    """The source of the base that an adapter's config names."""
    if not isinstance(named, str) or not named:
        return "hf://org/base"
    if Path(named).exists():
        return str(Path(named).resolve())
    try:
        return str(Source.parse(f"hf://{named}"))
    except SourceSyntaxError:
        return named


def _plain(text: str) -> str:
    """A text in YAML: quoted where it has to be."""
    return text if re.fullmatch(r"[\w./@:+-]+", text) else json.dumps(text)


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
    on. Raises :class:`LockError` for an invalid one, and for one that another manifest has too.
    """
    if file.file is None:
        return None
    path = lock_path(file.file)
    _require_own(Path(file.file), path)
    sides = read_both_sides(path)
    if sides is not None:
        return agreed(*sides)
    return _require_sound(read_lock(path, to_replace=True), path)


def _require_own(manifest: Path, lock: Path) -> None:
    """Raise where ``NAME.yaml`` and ``NAME.yml`` are both manifests: each would take the other's
    lock for an old one of its own, and replace it."""
    for other in map(lock.with_suffix, SUFFIXES):
        if other.name == manifest.name or not other.is_file() or not is_manifest(other):
            continue
        if not other.samefile(manifest):
            raise LockError(
                lock_codes.LOCK_UNWRITABLE.finding(
                    f"{manifest.name} and {other.name} would have the same lock, {lock.name}",
                    Where(file=str(manifest)),
                    hint="Rename one of the two manifests.",
                )
            )


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
