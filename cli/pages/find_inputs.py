"""What an argument names: a registry, manifests, or a folder that is searched for all of these."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...manifests.find import SUFFIXES, is_manifest, may_be_read, place_of
from ...manifests.findings import usage as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where
from ...registry.files.names import ADAPTER_CONFIG
from ...registry.registries import local_name
from ...registry.sources.failures import scrub
from ...registry.storages.layout import IDENTITY

T = TypeVar("T")

DEPTH = 12
"""Folders below the one that is searched."""
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})


@dataclass(frozen=True)
class Found:
    """What is to be shown. ``registries`` are URLs, folders or local names; ``folders`` are those
    of adapters, each with the folder that was searched. ``skipped``: YAML files without the keys
    of a manifest."""

    registries: tuple[str, ...] = ()
    manifests: tuple[Path, ...] = ()
    folders: tuple[tuple[Path, Path], ...] = ()
    skipped: int = 0


def find_inputs(arguments: Iterable[str]) -> Found:
    """What the arguments name, each thing once.

    Raises:
        UsageError: One of them names nothing, or there is nothing in it.
    """
    registries: list[str] = []
    manifests: list[Path] = []
    folders: list[tuple[Path, Path]] = []
    skipped = 0
    for text in arguments:
        if "://" in text or text.startswith("oci-archive:"):
            registries.append(text)
            continue
        path = Path(text)
        kind = _kind(path) if text else None
        if kind == "registry":
            registries.append(text)
        elif kind == "folder":
            inside = _search(path)
            registries += inside.registries
            manifests += inside.manifests
            folders += inside.folders
            skipped += inside.skipped
        elif kind == "file":
            manifests.append(_manifest(path))
        elif local_name(text) is not None:
            registries.append(text)
        else:
            raise no_such_input(text)
    found = Found(
        _once(registries, _identity),
        _once(manifests, place_of),
        _once(folders, lambda pair: pair[0].resolve()),
        skipped,
    )
    if not (found.registries or found.manifests or found.folders):
        raise UsageError(
            codes.SITE_EMPTY.finding(
                "There is nothing to show: no manifest, adapter or registry was found",
                found=f"{skipped} other YAML files" if skipped else None,
            )
        )
    return found


def no_such_input(text: str, known: Iterable[str] = ()) -> UsageError:
    """That an argument names nothing; ``known`` are the names of registries."""
    return UsageError(
        codes.SITE_INPUT.finding(
            "There is no such registry, folder or manifest",
            found=scrub(text) or "an empty argument",
            expected=", ".join(known) or None,
        )
    )


def _manifest(path: Path) -> Path:
    if path.suffix in SUFFIXES:
        return path
    raise UsageError(
        codes.SITE_INPUT.finding(
            "This file is not a manifest",
            Where(file=str(path)),
            found=path.name,
            expected=f"a name that ends in {' or '.join(SUFFIXES)}",
            hint="Name a manifest, or the folder of the adapter.",
        )
    )


def _kind(path: Path) -> str | None:
    try:
        if path.is_dir():
            return "registry" if (path / IDENTITY).is_file() else "folder"
        return "file" if path.exists() else None
    except (OSError, ValueError):
        return None


def _search(root: Path) -> Found:
    """What is in a folder and below it. Hidden folders, and those of packages, are left out."""
    registries: list[str] = []
    manifests: list[Path] = []
    folders: list[tuple[Path, Path]] = []
    skipped = 0

    def failed(error: OSError) -> None:
        raise UsageError(
            codes.SITE_INPUT.finding(
                "Cannot read a folder", Where(file=str(error.filename)), found=error.strerror
            )
        )

    for place, inside, files in os.walk(root, onerror=failed):
        folder = Path(place)
        if IDENTITY in files:
            registries.append(f"./{folder.as_posix()}" if not folder.is_absolute() else place)
            inside[:] = []
            continue
        if ADAPTER_CONFIG in files:
            folders.append((folder, root))
        for name in sorted(files):
            if name.endswith(SUFFIXES) and may_be_read(folder / name):
                if is_manifest(folder / name):
                    manifests.append(folder / name)
                else:
                    skipped += 1
        deep = len(folder.relative_to(root).parts) >= DEPTH
        kept = sorted(name for name in inside if name[0] != "." and name not in _SKIPPED)
        inside[:] = [] if deep else kept
    return Found(tuple(registries), tuple(manifests), tuple(folders), skipped)


def _identity(registry: str) -> Hashable:
    """What a registry is named by: one folder may be written in several ways."""
    path = Path(registry)
    return path.resolve() if _kind(path) == "registry" else registry


def _once(items: Iterable[T], identity: Callable[[T], Hashable]) -> tuple[T, ...]:
    found: dict[Hashable, T] = {}
    for item in items:
        found.setdefault(identity(item), item)
    return tuple(found.values())
