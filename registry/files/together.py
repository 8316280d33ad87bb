"""Files that belong together, written into one folder: a reader finds the old ones, the new ones,
or a mix that it can detect.

They are written beside the folder first, and flushed to the disk before any of them gets its name.
A new folder gets its name in one step. Where a folder holds only these files, old and new folder
exchange their names. Otherwise (the folder holds other files, or the system cannot exchange) each
file is renamed in order: the files that a reader checks against later ones come first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

from ...manifests.owner import left_beside, made_beside
from .disk import remove, sync_file, sync_folder
from .exchange import exchange

_SAVING = "saving"


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` (relative paths to contents) into ``folder``; see :func:`together`."""
    with together(folder, tuple(files)) as new:
        for name, data in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@contextmanager
def together(folder: Path, order: Collection[str] = ()) -> Generator[Path]:
    """A new folder to write files into. At the end of the block they are moved to ``folder`` (which
    is created), those of ``order`` last and in this order; other files in ``folder`` stay.

    Also removes what killed processes left. Raises :class:`OSError`; then the files are unchanged,
    or the first of them are new.
    """
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    inside = target / target.name
    for left in (*left_beside(target, _SAVING), *left_beside(inside, _SAVING)):
        remove(left)
    apart = os.access(target.parent, os.W_OK) and not target.is_mount()
    new = made_beside(target if apart else inside, _SAVING)
    try:
        new.mkdir(parents=True)
        yield new
        names = _files_in(new)
        for name in names:
            sync_file(new / name)
        if not (apart and (_name_first(new, target) or _take_place(new, target, names))):
            for name in (*sorted({*names} - {*order}), *(n for n in order if n in names)):
                place = target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (new / name).replace(place)
        for name in names:
            sync_folder((target / name).parent)
        sync_folder(target.parent)
    finally:
        remove(new)


def _name_first(new: Path, target: Path) -> bool:
    """Rename ``new`` to ``target``; ``False`` where that exists."""
    if os.path.lexists(target):
        return False
    try:
        new.rename(target)
    except OSError:  # another process was first
        if not target.is_dir():
            raise
        return False
    return True


def _take_place(new: Path, target: Path, names: Collection[str]) -> bool:
    """Exchange the folders, where ``target`` holds nothing else and has the same owner."""
    try:
        old, made = target.stat(), new.stat()
        if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid):
            return False
        if not _holds_only(target, names):
            return False
        new.chmod(stat.S_IMODE(old.st_mode))
    except OSError:  # another process changes it
        return False
    return exchange(new, target)


def _files_in(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _holds_only(target: Path, names: Collection[str]) -> bool:
    """Whether replacing ``target`` loses no other file."""
    if not target.is_dir():
        return False
    folders = {parent.as_posix() for name in names for parent in PurePath(name).parents}
    for path in target.rglob("*"):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or name not in (folders if path.is_dir() else names):
            return False
    return True
