"""A file's content under a second name without copying it, on file systems that share blocks.

Linux's ``FICLONE`` (Btrfs, XFS, bcachefs, overlayfs on them): a later change of either file leaves
the other as it was. See ioctl_ficlonerange(2).
"""

from __future__ import annotations

import os
import sys

_FICLONE = 0x40049409


def clone(source: int, target: int) -> bool:
    """Whether the open, empty file ``target`` now has the content of ``source``; ``False`` where
    the file system cannot do so. Both are file descriptors."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        os.ftruncate(target, 0)
        return False
    return True
