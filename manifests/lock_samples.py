"""The sample table of a lock's base, in ``NAME.lock.samples`` beside the lock.

The lock has the table's digest. The file has one table on each line: the one of the lock and, while
a lock is replaced, the next one too. So a reader and a killed writer always have the table of the
lock that they see. A line is found by its digest, so other lines (of a merge, say) do no harm.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from .bounds import LOCK_BYTES
from .reading.bounded_file import read_at_most

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

TABLE = "samples/"
"""What the text of a sample table starts with."""

DIGEST = "sha256:"

WAIT_SECONDS = 10.0
"""How long a writer waits for another one."""

_HEAD = "# Samples of the base's weights, for the lock beside it. Written by `adapterdock lock`.\n"


def samples_path(lock: Path) -> Path:
    """``adapters.lock.samples`` for ``adapters.lock``."""
    return lock.with_name(f"{lock.name}.samples")


def samples_digest(table: str) -> str:
    """The digest of a sample table's text."""
    return DIGEST + hashlib.sha256(table.encode()).hexdigest()


def read_tables(path: Path) -> tuple[str, ...]:
    """Every sample table in the file, in its order; none if there is no such file. Raises
    :class:`OSError` for one that cannot be read."""
    try:
        raw = read_at_most(path, LOCK_BYTES, regular=True)
    except FileNotFoundError:
        return ()
    lines = (line.strip() for line in raw.decode("utf-8", "replace").splitlines())
    return tuple(dict.fromkeys(line for line in lines if line.startswith(TABLE)))


def find_table(path: Path, digest: str) -> str | None:
    """The sample table in the file that has ``digest``."""
    return next((t for t in read_tables(path) if samples_digest(t) == digest), None)


def render_tables(tables: Iterable[str]) -> str:
    """The file's text."""
    return _HEAD + "".join(f"{table}\n" for table in dict.fromkeys(tables))


@contextmanager
def one_writer(folder: Path) -> Generator[None]:
    """Waits while another process replaces a lock in ``folder``. On a file system that cannot lock
    a folder, and after :data:`WAIT_SECONDS`, it goes on."""
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        os.close(number)  # this lets the next writer in
