"""Two folders exchange their names in one step, where the system can do that.

Linux has ``renameat2`` with ``RENAME_EXCHANGE``, macOS ``renamex_np`` with ``RENAME_SWAP``. Some
file systems (network mounts among them) do neither, and Windows has nothing of the kind.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_SWAP = 2
"""The flag of both calls."""


def exchange(one: Path, other: Path) -> bool:
    """Let ``one`` be where ``other`` is, and the other way round; ``False``, with nothing done,
    where that cannot be. Both are there at every moment, also where the process is killed."""
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return system.renamex_np(first, second, _SWAP) == 0
        if sys.platform == "linux":
            return system.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _SWAP) == 0
    except (OSError, AttributeError, TypeError):  # a C library without it
        pass
    return False
