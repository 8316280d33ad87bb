"""Why a local file is not the one that was locked: what git did with it, or another content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..files.digests import PREFIX
from ..files.header import LFS_POINTER

CHANGED = "has changed since it was locked"
_TEXT_BYTES = 1 << 20
"""Larger files are not compared with other line ends: configs and tokenizers are smaller."""


def why_changed(path: Path, sha256: str | None) -> tuple[str, str]:
    """What is wrong with the file, as the end of a sentence, and what to do.

    A checkout is often not what was committed: Git LFS leaves pointers where it is not installed,
    and git on Windows writes other line ends.

    Args:
        path: The file as it is.
        sha256: The digest that was locked.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_TEXT_BYTES + 1)
    except OSError:
        data = b""
    if data.startswith(LFS_POINTER):
        return (
            "is a Git LFS pointer, not the file itself",
            "Fetch the real file with `git lfs pull`.",
        )
    if sha256 is not None and len(data) <= _TEXT_BYTES and _only_line_ends(data, sha256):
        return (
            "has other line ends than when it was locked",
            f"Write `{path.name} -text` into .gitattributes, so that git keeps the bytes as they "
            "were committed, and check the file out again.",
        )
    return (
        CHANGED,
        "If the change is intended, run `adapterdock lock --upgrade NAME`. If not, restore the "
        "file.",
    )


def _only_line_ends(data: bytes, sha256: str) -> bool:
    unix = data.replace(b"\r\n", b"\n")
    others = (unix, unix.replace(b"\n", b"\r\n"))
    return any(PREFIX + hashlib.sha256(other).hexdigest() == sha256 for other in others)
