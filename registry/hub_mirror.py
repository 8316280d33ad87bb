"""Mirrors of the Hub: what a lock pins there, copied to a folder that ``mirrors:`` reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.frozen import FrozenDict
from ..manifests.language.source import HUB, Source, SourceSyntaxError
from ..manifests.lockfile import Lock, LockedAdapter, LockedBase, LockedFile
from ..manifests.manifest import ManifestFile
from .access.session import session_for
from .files.pool import each
from .files.progress import OneAtATime, Progress, Silent, transfer_shown
from .locks.inputs import LockEntry
from .locks.project import ManifestSource, lock_of, open_manifest
from .locks.state import kept, require_lock
from .pull import Pulled, pull_pinned, require_policy
from .sources.fetch import Fetched
from .sources.mirrors import path_in_mirror
from .storages.copy_target import CopyTarget, open_target
from .store.store import Store

WORKERS = 8
PREFIX = f"{HUB}://"
"""What ``mirrors`` of a manifest replaces."""


@dataclass(frozen=True)
class MirroredEntry:
    """The base (``name`` is ``None``) or an adapter from the Hub: its source at the locked commit,
    the folder in the mirror that has it, and how many files it has."""

    name: str | None
    source: str
    folder: str
    files: int


@dataclass(frozen=True)
class MirroredHub:
    """What was copied, or would be.

    Attributes:
        url: The mirror, as it was named.
        entries: What the mirror has for this manifest.
        copied: Paths in the mirror that were written, or would be.
        size: Their bytes.
        others: Sources of the manifest that are not on the Hub and not on this machine, by
            adapter's name; the base's is ``base``.
    """

    url: str
    entries: tuple[MirroredEntry, ...]
    copied: tuple[str, ...]
    size: int
    others: Mapping[str, str]


def mirror_hub(
    manifest: ManifestSource,
    to: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> MirroredHub:
    """Copy every file that a lock pins on the Hub to a folder, for ``mirrors: {"hf://": FOLDER/}``.

    The files of ``hf://org/name/inside`` at a commit are in ``org/name/COMMIT/inside``. Each is
    verified before it is copied and appears complete. Files that are there already are not copied
    again, so a run that was stopped is continued by the next one; nothing is deleted. A base that
    the lock pins without sha256 gets it, and the lock is written again.

    Args:
        manifest: The manifest's path. Its lock must be there and current.
        to: A folder: a path, ``s3://bucket/folder``, or another that fsspec writes.
        dry_run: Copy nothing. What is not on this machine is not fetched either.
        policy: A policy file that must allow everything too.
        offline: Use no network; everything must be in the cache, and ``to`` on this machine.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched and copied.

    Returns:
        What was copied.

    Raises:
        UsageError: Nothing in the manifest is on the Hub, or ``to`` cannot be written.
        LockError: The lock is missing, stale or incomplete.
        PolicyError, SourceError, IntegrityError, StoreError: As :func:`pull`.
    """
    file = open_manifest(manifest)
    session = session_for(file, policy=policy, offline=offline, store=store, progress=progress)
    lock = lock_of(file)
    require_lock(file, lock, frozen=lock is None)
    assert lock is not None
    require_policy(file, lock, session.access)
    entries = _on_hub(file, lock)
    if not entries:
        raise UsageError(
            codes.NOTHING_ON_HUB.finding(
                "Nothing that this manifest names is on the Hub", file.where(("base", "model"))
            )
        )
    target = open_target(os.fspath(to), Path.cwd(), offline=offline)
    file = _from_the_hub(file, Source.parse(os.fspath(to)))
    folders = {
        name: path_in_mirror(source, entry.revision) for name, (source, entry) in entries.items()
    }
    shown = tuple(
        MirroredEntry(name, str(source.at(str(entry.revision))), folders[name], len(entry.files))
        for name, (source, entry) in entries.items()
    )
    others = _others(file)
    lacking = _lacking(entries, folders, target)
    if dry_run:
        sizes = {path: size for found in lacking.values() for path, size in found.items()}
        return MirroredHub(target.url, shown, tuple(sizes), sum(sizes.values()), others)
    pulled = pull_pinned(file, lock, session, lock, only=lacking)
    copied = _copy(_places(pulled, folders), target, progress)
    return MirroredHub(target.url, shown, tuple(sorted(copied)), sum(copied.values()), others)


def _lacking(
    entries: Mapping[LockEntry, tuple[Source, LockedAdapter | LockedBase]],
    folders: Mapping[LockEntry, str],
    target: CopyTarget,
) -> dict[LockEntry, dict[str, int]]:
    """By entry, the files that the mirror lacks, with their sizes; entries that lack none are
    absent. A file whose digest is not locked yet cannot be compared, so it is lacking."""
    files = [
        (name, f"{folders[name]}/{path}", locked)
        for name, (_, entry) in entries.items()
        for path, locked in entry.files.items()
    ]

    def has(one: tuple[LockEntry, str, LockedFile]) -> bool:
        _, path, locked = one
        return locked.sha256 is not None and target.has(path, locked.size, locked.sha256)

    there = each(has, files, WORKERS)
    lacking: dict[LockEntry, dict[str, int]] = {}
    for (name, path, locked), is_there in zip(files, there, strict=True):
        if not is_there:
            lacking.setdefault(name, {})[path] = locked.size
    return lacking


def _from_the_hub(file: ManifestFile, to: Source) -> ManifestFile:
    """The manifest without the mirrors that lead to ``to``: they lack what is to be copied."""
    place = to.normalised(Path.cwd())

    def leads_there(target: str) -> bool:
        try:
            source = Source.parse(target.rstrip("/") or target)
            here = source.local_path(file.directory) if source.is_local else None
        except SourceSyntaxError:
            return False
        if here is not None:
            return to.is_local and os.path.realpath(here) == os.path.realpath(
                to.local_path(Path.cwd())
            )
        return not to.is_local and source.normalised() == place

    mirrors = {k: v for k, v in file.manifest.mirrors.items() if not leads_there(v)}
    return replace(file, manifest=file.manifest.model_copy(update={"mirrors": FrozenDict(mirrors)}))


def _on_hub(
    file: ManifestFile, lock: Lock
) -> dict[LockEntry, tuple[Source, LockedAdapter | LockedBase]]:
    """What the lock pins at a commit of the Hub, by entry, with the declared source."""
    entries: dict[LockEntry, tuple[Source, LockedAdapter | LockedBase]] = {}
    pinned = kept(file, lock)
    model = file.manifest.base.model
    if lock.base is not None and None in pinned and model is not None and model.is_hub:
        entries[None] = (model, lock.base)
    for name, adapter in file.manifest.adapters.items():
        if name in pinned and adapter.source is not None and adapter.source.is_hub:
            entries[name] = (adapter.source, lock.adapters[name])
    return entries


def _others(file: ManifestFile) -> dict[str, str]:
    declared = {"base": file.manifest.base.model} | {
        name: adapter.source for name, adapter in file.manifest.adapters.items()
    }
    return {
        name: str(source)
        for name, source in declared.items()
        if source is not None and not (source.is_hub or source.is_local)
    }


def _places(pulled: Pulled, folders: Mapping[LockEntry, str]) -> dict[str, Fetched]:
    """By its path in the mirror, each file once."""
    files: Iterable[tuple[LockEntry, Mapping[str, Fetched]]] = (
        (None, pulled.base),
        *pulled.adapters.items(),
    )
    return {
        f"{folders[entry]}/{path}": fetched
        for entry, found in files
        for path, fetched in found.items()
    }


def _copy(
    places: Mapping[str, Fetched], target: CopyTarget, progress: Progress | None
) -> dict[str, int]:
    """Copy what the mirror lacks; the sizes of what was copied, by path."""
    shown = OneAtATime(progress or Silent())

    def copy(path: str) -> bool:
        fetched = places[path]
        sha256, size = str(fetched.fact.sha256), fetched.fact.size
        if target.has(path, size, sha256):
            return False
        with transfer_shown(shown, path, size) as on_bytes:
            target.put(path, fetched.path, sha256, on_bytes)
        return True

    paths = sorted(places)
    done = each(copy, paths, WORKERS)
    return {path: places[path].fact.size for path, new in zip(paths, done, strict=True) if new}
