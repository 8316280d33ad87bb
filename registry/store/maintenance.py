"""Maintenance of the store: its content, its integrity, and freeing space.

Each function may be killed at any moment, or run in two processes at once: each step is one
rename or one removal, and a file that is already gone is not an error.
"""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...manifests.findings.errors import StoreError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.store import DAMAGED_OBJECT, NO_CACHE, NO_SPACE, STRAY_FILE
from ...manifests.owner import Owner
from ..files.digests import PREFIX, is_digest, sha256_file
from ..files.disk import fault, guarded, listing, remove
from .link_trees import linked
from .store import Store, sweep

GRACE = 600.0
"""Seconds after its last use during which :func:`collect` removes nothing."""


@dataclass(frozen=True)
class StoreEntry:
    """One file in the store. ``last_used`` is in seconds since the epoch; ``origin`` says where
    it was first fetched from, if recorded; ``trees`` are the folders that link to it."""

    digest: str
    size: int
    last_used: float
    origin: str = ""
    trees: tuple[str, ...] = ()


@dataclass(frozen=True)
class Freed:
    """What :func:`collect` removed: bytes on the disk, and the digests of the objects."""

    size: int = 0
    digests: tuple[str, ...] = ()


def entries(store: Store) -> list[StoreEntry]:
    """The files in the store, the least recently used first."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for tree in listing(store.trees):
        for digest in linked(tree):
            users[digest].append(tree.name)
    found: list[StoreEntry] = []
    for path in _objects(store):
        digest = PREFIX + path.name
        with suppress(FileNotFoundError):
            found.append(
                StoreEntry(
                    digest,
                    path.stat().st_size,
                    store.last_used(path),
                    store.origin(digest),
                    tuple(users[digest]),
                )
            )
    return sorted(found, key=lambda entry: (entry.last_used, entry.digest))


def size(store: Store) -> int:
    """Bytes of all objects, and of files in trees that are copies."""
    objects = 0
    for path in _objects(store):
        with suppress(FileNotFoundError):
            objects += path.stat().st_size
    return objects + sum(_copied(tree) for tree in listing(store.trees))


def verify(store: Store, on_bytes: Callable[[int], None] | None = None) -> list[Finding]:
    """Read all objects again.

    Damaged ones are reported and moved to ``quarantine/``, so that the next pull fetches them
    again. A folder that is not a cache is a finding.

    Args:
        store: The cache to read.
        on_bytes: Called with the number of bytes of each read.

    Returns:
        One finding for each damaged or unknown file.
    """
    if other := _other_than_a_cache(store):
        return [other]
    findings: list[Finding] = []
    for path in _objects(store):
        try:
            before = path.stat()
            found = sha256_file(path, on_bytes)
            if found != PREFIX + path.name:
                findings.append(_quarantine(store, path, before, found))
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            findings.append(fault(error, path))
    findings.extend(
        STRAY_FILE.finding(f"{path} is not a file of the cache")
        for path in _contents(store)
        if not _is_object(path)
    )
    return findings


def collect(
    store: Store,
    max_size: int | None = None,
    *,
    grace: float = GRACE,
) -> Freed:
    """Remove the remains of killed processes, unused folders of links, and then objects.

    The least recently used objects go first, until at most ``max_size`` bytes are left. Objects
    that a live process holds (:meth:`Store.hold`) stay. Each step leaves a valid store.

    Args:
        store: The cache to make smaller.
        max_size: Bytes to keep at most. Without it no object is removed.
        grace: Objects used less than this many seconds ago stay.

    Returns:
        What was removed.

    Raises:
        StoreError: The disk refuses, or the folder has files and is not a cache.
    """
    if other := _other_than_a_cache(store):
        raise StoreError(other)
    if not store.root.is_dir():
        return Freed()
    now = _now(store)
    before = size(store)
    _sweep(store, now, grace)
    for tree in listing(store.trees):
        used = store.last_used(tree)
        if now - used >= grace and not _names(tree, PREFIX + tree.name) & store.held():
            _discard_unused(store, tree, used)
    removed: list[str] = []
    left = size(store)
    for entry in entries(store) if max_size is not None else ():
        if max_size is None or left <= max_size:
            break
        if now - entry.last_used >= grace and entry.digest not in store.held():
            path = store.object_path(entry.digest)
            if _discard_unused(store, path, entry.last_used):
                removed.append(entry.digest)
                left -= entry.size
    store.verified.sweep()
    return Freed(max(0, before - size(store)), tuple(removed))


def _objects(store: Store) -> Iterator[Path]:
    return filter(_is_object, _contents(store))


def _contents(store: Store) -> Iterator[Path]:
    for folder in listing(store.objects):
        if len(folder.name) == 2 and folder.is_dir():
            yield from listing(folder)
        else:
            yield folder


def _is_object(path: Path) -> bool:
    with suppress(OSError):
        right = is_digest(PREFIX + path.name) and path.parent.name == path.name[:2]
        return right and stat.S_ISREG(path.lstat().st_mode)
    return False


def _copied(tree: Path) -> int:
    total = 0
    for folder, _, names in os.walk(tree):
        for name in names:
            with suppress(OSError):
                status = (Path(folder) / name).lstat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    total += status.st_size
    return total


def _quarantine(store: Store, path: Path, before: os.stat_result, found: str) -> Finding:
    place = store.quarantine / Owner.me().new_name()
    outcome = f"it was moved to {place}"
    try:
        store.quarantine.mkdir(exist_ok=True)
        if path.stat().st_ino == before.st_ino:  # else it was repaired meanwhile
            path.rename(place)
    except OSError as error:
        outcome = f"it is never used, but cannot be moved away ({error.strerror})"
    return DAMAGED_OBJECT.finding(
        f"{path} is damaged; {outcome}", found=found, expected=PREFIX + path.name
    )


def _other_than_a_cache(store: Store) -> Finding | None:
    """A finding for a folder that has files and is not a cache. A missing or empty folder may
    become one."""
    if store.exists() or not os.path.lexists(store.root):
        return None
    if store.root.is_dir() and not listing(store.root):
        return None
    return NO_CACHE.finding(
        f"{store.root} is not a cache of adapterdock", Where(file=str(store.root))
    )


def _now(store: Store) -> float:
    # By the file system's clock, which a network mount's server sets.
    probe = store.tmp / Owner.me().new_name()
    try:
        with guarded(store.root):
            store.tmp.mkdir(exist_ok=True)
            probe.touch()
            return probe.stat().st_mtime
    except StoreError as error:
        if error.code != NO_SPACE.id:
            raise
        return time.time()  # a full disk is what gc is for
    finally:
        remove(probe)


def _sweep(store: Store, now: float, grace: float) -> None:
    for folder in (store.tmp, store.holds):
        sweep(folder, now)
    for damaged in listing(store.quarantine):
        if Owner.of(damaged.name) is not None:
            remove(damaged)
    for note in listing(store.notes):
        with suppress(OSError):
            orphan = not (store.objects / note.name[:2] / note.name).exists()
            ours = is_digest(PREFIX + note.name)
            if ours and orphan and now - note.stat().st_mtime >= grace:
                note.unlink()


def _names(path: Path, digest: str) -> frozenset[str]:
    """The digests by which a hold may name an object or a tree: its own, and those it links to."""
    return linked(path) | {digest}


def _discard_unused(store: Store, path: Path, last_used: float) -> bool:
    """Remove an object or a tree, unless a process used it after ``last_used``.

    A user first marks (touches the note or the tree, writes a hold) and then looks; here the
    object is first moved away, in one step, and then the marks are read. So one always sees the
    other.
    """
    digest = PREFIX + path.name
    place = store.tmp / Owner.me().new_name()  # as it is: a full disk takes no new folder
    try:
        with guarded(path):
            if path.is_dir():
                path.chmod(0o755)
            path.rename(place)
            used = max(store.last_used(path), place.stat().st_mtime)
            if used > last_used or _names(place, digest) & store.held():
                place.rename(path)
                return False
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False  # another process was first
        raise
    finally:
        remove(place)
    with suppress(OSError):
        (store.notes / path.name).unlink()
    return True
