"""Exchange the names of two folders, in one step where the system can.

Linux has ``renameat2`` with ``RENAME_EXCHANGE``, macOS ``renamex_np`` with ``RENAME_SWAP``. Windows
and some file systems (such as network mounts) have neither.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_SWAP = 2
"""The flag of both calls."""


def exchange(left: Path, right: Path) -> bool:
    """Exchange two paths atomically; ``False``, with no change, where that is not possible."""
    first, second = os.fsencode(left), os.fsencode(right)
    try:
        system = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return system.renamex_np(first, second, _SWAP) == 0
        if sys.platform == "linux":
            return system.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _SWAP) == 0
    except (OSError, AttributeError, TypeError):  # the C library does not have it
        pass
    return False


def swap(new: Path, place: Path, old: Path) -> None:
    """Give ``new`` the name ``place``. What is there gets the name of ``new``, or ``old`` where the
    system cannot exchange them. Raises :class:`OSError`; then ``place`` is as it was."""
    if not os.path.lexists(place):
        new.rename(place)
        return
    if exchange(new, place):
        return
    place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        old.rename(place)
        raise
