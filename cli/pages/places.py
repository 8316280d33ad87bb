"""Paths of this machine, which are left out of a site."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ...manifests.find import place_of


def place_label(folder: Path) -> str:
    """What a site calls a folder: its path below the current folder, or the end of it."""
    return _label(Path(os.path.realpath(folder)))


def manifest_label(path: Path) -> str:
    """What a site calls a manifest; a link by its own path."""
    return _label(Path(place_of(path)))


def _label(there: Path) -> str:
    here = Path.cwd().resolve()
    if there == here:
        return there.name or "here"
    try:
        return there.relative_to(here).as_posix()
    except ValueError:
        return "/".join(there.parts[1:][-2:]) or "here"


def free_name(name: str, taken: Collection[str]) -> str:
    """``name``, with a number where it is taken."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def without_here(text: str) -> str:
    """``text`` with paths below the current folder made relative."""
    return text.replace(f"{Path.cwd()}/", "")
