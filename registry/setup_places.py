"""Where the files of a set-up are, relative to one another: they move together. Pure.

A manifest names its local files relative to itself. So their paths in a bundle are relative to the
nearest folder that has all of them.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.source import Source
from ..manifests.lock_samples import samples_path
from ..manifests.lockfile import lock_path
from ..manifests.manifest import ManifestFile
from ..manifests.reading.nodes import Map, Scalar
from ..manifests.reading.policy_paths import key_files
from .files.digests import path_problem
from .locks.inputs import LockEntry


@dataclass(frozen=True)
class Places:
    """Paths relative to the folder that has all of the set-up.

    ``files`` are the manifest, the files that it extends and the keys of their policies, with where
    each is now; ``folders`` are those of local adapters and of a local base (``None``).
    """

    manifest: str
    lock: str
    samples: str
    files: Mapping[str, Path]
    folders: Mapping[LockEntry, str]


def places_of(file: ManifestFile, *, with_base: bool, extends: Iterable[str] = ()) -> Places:
    """The places of a set-up.

    Args:
        file: The manifest, which has a file.
        with_base: Whether the base goes along, if it is local.
        extends: The values of ``extends`` as written.

    Raises:
        UsageError: A part of it is named by a path that exists on this machine only.
    """
    assert file.file is not None  # a manifest in memory has no lock
    directory = _absolute(file.directory)
    findings = _elsewhere(file, extends, with_base=with_base)
    if findings:
        raise UsageError(*findings)
    manifest = _absolute(file.files[0])
    files = [*file.files, *(Path(key.text) for key in _keys(file))]
    folders = {
        entry: _absolute(directory / source.location)
        for entry, source in _local(file, with_base=with_base)
    }
    above = [_absolute(path).parent for path in files]
    root = os.path.commonpath([*above, *folders.values()])

    def inside(path: Path) -> str:
        return path.relative_to(root).as_posix()

    lock = lock_path(manifest)
    found = Places(
        manifest=inside(manifest),
        lock=inside(lock),
        samples=inside(samples_path(lock)),
        files={inside(_absolute(path)): path for path in files},
        folders={entry: inside(folder) for entry, folder in folders.items()},
    )
    for path in (*found.files, *(f for f in found.folders.values() if f != ".")):
        if (problem := path_problem(path)) is not None:
            raise UsageError(
                codes.SETUP_NOT_MOVABLE.finding(
                    f"{path!r} cannot be the path of a file everywhere", found=problem
                )
            )
    return found


def below(folder: str, path: str) -> str:
    """The path of a file of one of ``Places.folders``."""
    return posixpath.normpath(posixpath.join(folder, path))


def _local(file: ManifestFile, *, with_base: bool) -> Iterator[tuple[LockEntry, Source]]:
    manifest = file.manifest
    for name, adapter in manifest.adapters.items():
        if adapter.source is not None and adapter.source.is_local:
            yield name, adapter.source
    model = manifest.base.model
    if with_base and model is not None and model.is_local:
        yield None, model


def _elsewhere(file: ManifestFile, extends: Iterable[str], *, with_base: bool) -> list[Finding]:
    local = [
        codes.SETUP_NOT_MOVABLE.finding(
            f"{'The base' if entry is None else f'Adapter {entry!r}'} has a path that exists on "
            "this machine only",
            file.where(("base", "model") if entry is None else ("adapters", entry, "source")),
            found=source.location,
            expected="a path relative to the manifest, or a source that is not local",
        )
        for entry, source in _local(file, with_base=with_base)
        if source.location.startswith(("/", "~"))
    ]
    extended = [
        codes.SETUP_NOT_MOVABLE.finding(
            "The manifest extends a file by a path that exists on this machine only",
            Where(file=file.file, path=("extends",)),
            found=text,
            expected="a path relative to the manifest",
        )
        for text in extends
        if text.startswith("/")
    ]
    keys = [
        codes.SETUP_NOT_MOVABLE.finding(
            "The policy names a key by a path that exists on this machine only",
            Where(file=file.file, path=("policy",)),
            found=key.text,
            expected="a path relative to the manifest, or the key itself",
        )
        for key in _keys(file)
        if (key.written or key.text).startswith(("/", "~"))
    ]
    return [*local, *extended, *keys]


def _keys(file: ManifestFile) -> list[Scalar]:
    """The key files of the manifest's policy, and of those of the files that it extends."""
    entry = file.root.entries.get("policy")
    own = [] if entry is None else [entry.value]
    found = [*own, *(below.root for below in file.extended)]
    return [key for policy in found if isinstance(policy, Map) for key in key_files(policy)]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps links as they are
