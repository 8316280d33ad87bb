"""Reading a file that somebody else wrote: a limited number of bytes, and a limited time."""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path

from ..bounds import PIPE_SECONDS

_CHUNK = 1 << 16


def read_at_most(path: str | os.PathLike[str], limit: int, *, regular: bool = False) -> bytes:
    """The bytes of the file, at most ``limit + 1`` of them: one more than allowed shows that it is
    too large.

    A pipe is read too (``<(command)`` in a shell makes one). It is an error if nobody writes into
    it, or nothing arrives for ``PIPE_SECONDS``. ``regular`` refuses pipes and devices at once: a
    path from another file must not name them. Raises :class:`OSError`.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("it is a folder")
    if stat.S_ISREG(mode):
        with Path(path).open("rb") as stream:
            return stream.read(limit + 1)
    if regular:
        raise OSError("it is not a regular file")
    if not stat.S_ISFIFO(mode):
        with Path(path).open("rb", buffering=0) as stream:
            return _read(stream.fileno(), limit, waits=False)
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _read(number, limit, waits=True)
    finally:
        os.close(number)


def _read(number: int, limit: int, *, waits: bool) -> bytes:
    """The bytes from a descriptor. At first a pipe without a writer reads as empty (``waits``), so
    its end only counts after something arrived, or after the wait."""
    data = bytearray()
    until = time.monotonic() + PIPE_SECONDS
    while len(data) <= limit:
        left = until - time.monotonic()
        if left <= 0:
            if waits and not data:
                raise TimeoutError(f"nothing arrived through this pipe in {PIPE_SECONDS:g} seconds")
            raise TimeoutError(f"this pipe sent nothing for {PIPE_SECONDS:g} seconds")
        if waits and not select.select([number], [], [], min(left, 0.5))[0]:
            continue
        try:
            chunk = os.read(number, min(_CHUNK, limit + 1 - len(data)))
        except BlockingIOError:
            continue
        if chunk:
            data += chunk
            until = time.monotonic() + PIPE_SECONDS
        elif data or not waits:
            break
        else:
            time.sleep(0.02)
    return bytes(data)
