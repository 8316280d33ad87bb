"""A folder in the system's temporary place, for what the cache cannot take: it is read-only."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ...manifests.owner import left_beside, made_beside
from .disk import remove


def scratch_folder() -> Path:
    """A new folder that only this user reads; whoever asks for it removes it. Those of processes
    that were killed are removed here. Raises :class:`OSError`."""
    beside = Path(tempfile.gettempdir()) / "adapterdock"
    for left in left_beside(beside, "scratch"):
        remove(left)
    folder = made_beside(beside, "scratch")
    folder.mkdir(mode=0o700)
    return folder
