"""Folders of links into the store, for readers that need names instead of digests.

Links are symbolic: a hard link would change the object's ctime, and with it the proof that the
object was not touched since it was verified. Where a file system has no symbolic links, hard
links are tried, then copies.
"""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...manifests.findings.errors import StoreError
from ...manifests.findings.finding import Finding
from ...manifests.findings.store import (
    CACHE_IO,
    CACHE_PERMISSION,
    CACHE_READ_ONLY,
    OBJECT_MISSING,
    UNSAFE_PATH,
)
from ..files.digests import PREFIX, check_paths, folder_digest, is_digest, parse_digest
from ..files.disk import close_folder, guarded, move_folder, remove
from ..files.facts import FileFact
from ..files.scratch import scratch_folder
from .store import Store

_RACES = 10


def materialise(store: Store, files: Mapping[str, Path | str]) -> Path:
    """Make a read-only folder of these files under these names, for ``from_pretrained``.

    Its name is the folder digest of its content, so the same files give the same folder. It is
    verified each time, through the memos.

    Args:
        store: Where the folder is made.
        files: By name (which may be nested), the digest of an object in the store, or the path
            of a file elsewhere (the Hub's cache), to which the folder links.

    Returns:
        The folder.

    Raises:
        StoreError: Names lead out of the folder (all are listed), an object is missing, or the
            disk refuses.
    """
    placed = _locate(store, files)
    facts = [fact for fact, _ in placed]
    tree = store.trees / parse_digest(folder_digest(facts))
    with guarded(tree):
        for _ in range(_RACES):
            with suppress(OSError):  # before the look, so that gc sees this use or was first
                os.utime(tree)
            if intact(store, tree, facts):
                return tree
            try:
                with guarded(tree), store.temporary() as new:
                    _build(new, tree, placed)
                    tree.parent.mkdir(exist_ok=True)
                    # Another process may have made it meanwhile, and be reading from it.
                    if os.path.lexists(tree) and not intact(store, tree, facts):
                        move_folder(tree, new.with_name("old"))
                    if move_folder(new, tree):
                        close_folder(tree)
            except StoreError as error:
                if error.code not in (CACHE_READ_ONLY.id, CACHE_PERMISSION.id):
                    raise
                return _for_this_process(tree.name, placed)
    raise StoreError(CACHE_IO.finding(f"Cannot make {tree}: it changed each time"))


def intact(store: Store, tree: Path, facts: list[FileFact]) -> bool:
    """Whether the tree has exactly these files, verified through the memos."""
    found = {
        (Path(folder) / name).relative_to(tree).as_posix()
        for folder, folders, names in os.walk(tree)
        for name in [*names, *(f for f in folders if (Path(folder) / f).is_symlink())]
    }
    if found != {fact.path for fact in facts} or not tree.is_dir():
        return False
    for fact in facts:
        path = tree / fact.path
        try:
            if store.verified.digest(path, expected=fact.sha256) != fact.sha256:
                return False
        except StoreError:
            return False
    return True


def linked(tree: Path) -> frozenset[str]:
    """The digests of the objects that a tree's symbolic links name."""
    digests: set[str] = set()
    for folder, _, names in os.walk(tree):
        for name in names:
            with suppress(OSError):
                target = (Path(folder) / name).readlink()
                if target.parent.parent.name == "sha256":
                    digests.add(PREFIX + target.name)
    return frozenset(d for d in digests if is_digest(d))


def _locate(store: Store, files: Mapping[str, Path | str]) -> list[tuple[FileFact, Path]]:
    findings: list[Finding] = check_paths(files)
    placed: list[tuple[FileFact, Path]] = []
    for name, value in sorted(files.items()):
        try:
            if isinstance(value, Path):
                path = Path(os.path.realpath(value))
                digest = store.verified.digest(path)
            else:
                digest = value
                found = store.find(digest)
                if found is None:
                    findings.append(
                        OBJECT_MISSING.finding(f"{name!r} is not in the cache", found=digest)
                    )
                    continue
                path = found
            with guarded(path):
                placed.append((FileFact(name, path.stat().st_size, digest), path))
        except StoreError as error:
            findings.extend(error.findings)
    if findings:
        raise StoreError(*findings)
    return placed


def _for_this_process(name: str, placed: list[tuple[FileFact, Path]]) -> Path:
    # The cache of a container image may be read-only, and its files must still be usable.
    place = scratch_folder()
    atexit.register(remove, place)
    tree = place / name
    _build(tree, tree, placed)
    close_folder(tree)
    return tree


def _build(new: Path, tree: Path, placed: list[tuple[FileFact, Path]]) -> None:
    new.mkdir()
    for fact, path in placed:
        link = new / fact.path
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            taken = os.path.lexists(link)
        except FileExistsError:
            taken = True
        if taken:
            raise StoreError(
                UNSAFE_PATH.finding(
                    f"{fact.path!r} is the same name as another on this file system",
                    found=repr(fact.path),
                )
            )
        target = str(path)
        root = tree.parent.parent
        if path.is_relative_to(root):  # relative, so that the whole cache may be moved
            depth = len(Path(fact.path).parts) + 1
            target = str(Path(*[".."] * depth) / path.relative_to(root))
        _link(link, target, path)


def _link(link: Path, target: str, path: Path) -> None:
    for make in (lambda: link.symlink_to(target), lambda: link.hardlink_to(path)):
        with suppress(OSError, NotImplementedError):
            make()
            return
    shutil.copyfile(path, link)
    link.chmod(0o444)
