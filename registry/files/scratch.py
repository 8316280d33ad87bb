"""A temporary folder, for files that a read-only cache cannot hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ...manifests.owner import left_beside, made_beside
from .disk import remove


def scratch_folder() -> Path:
    """A new folder that only this user can read; the caller removes it. Removes those of killed
    processes. Raises :class:`OSError`."""
    beside = Path(tempfile.gettempdir()) / "adapterdock"
    for left in left_beside(beside, "scratch"):
        remove(left)
    folder = made_beside(beside, "scratch")
    folder.mkdir(mode=0o700)
    return folder
