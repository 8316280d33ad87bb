"""Paths of this machine, which are left out of a site."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def place_label(path: Path) -> str:
    """What a site calls a file or folder: its path below the current folder, or the end of it."""
    here, there = Path.cwd(), path.resolve()
    if there == here.resolve():
        return there.name or "here"
    try:
        return there.relative_to(here.resolve()).as_posix()
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
