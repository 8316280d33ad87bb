"""Digests of files that were read once, remembered until the file changes.

A memo counts only while ``stat`` of the file is unchanged: real path, device, inode, size, and
both times in nanoseconds. A program cannot set the change time (ctime), so a file that is
rewritten in place with its old size and modification time is noticed. A file that changed within
the clock's granularity before it was hashed may change once more without a new time (git calls
such an entry "racily clean"); its digest is not remembered.

Each memo is a small file of its own, written by rename, with a checksum: processes that race
write the same bytes, and a damaged memo is ignored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from ...manifests.findings.errors import IntegrityError, StoreError
from ...manifests.findings.store import CACHE_IO, FILE_UNSTABLE
from ..files.digests import is_digest, sha256_bytes, sha256_stream
from ..files.disk import guarded

GRANULARITY_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT's two seconds)."""

_ATTEMPTS = 3
_TEMPORARY = ".new-"
_MEMO_LIMIT = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stamp:
    """The state of one file in ``stat`` (times in nanoseconds)."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def settled(self, now: int) -> bool:
        """Whether a change after ``now`` (ns) must show in the times."""
        return max(self.modified, self.changed) < now - GRANULARITY_NS


class Verified:
    """The memos, in ``directory``. If it cannot be written, digests are remembered only inside
    this process. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory: Path = directory
        self._here: dict[str, tuple[Stamp, str]] = {}

    def digest(
        self,
        path: Path,
        *,
        expected: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> str:
        """``sha256:HEX`` of a file; it is read only without a current memo.

        A memo other than ``expected`` is ignored: the file is read before it is reported as wrong.
        ``on_bytes`` gets the bytes that were really hashed. Raises :class:`StoreError` if the file
        cannot be read, :class:`IntegrityError` if it keeps changing meanwhile.
        """
        real = Path(os.path.realpath(path))
        with guarded(path):
            status = real.stat()
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(CACHE_IO.finding(f"{path} is not a regular file"))
            known = self._recall(real, Stamp.of(status))
            if known is not None and expected in (None, known):
                return known
            for _ in range(_ATTEMPTS):
                now = time.time_ns()
                with real.open("rb", buffering=0) as stream:
                    before = Stamp.of(os.fstat(stream.fileno()))
                    found = sha256_stream(stream, on_bytes, before.size)
                    after = Stamp.of(os.fstat(stream.fileno()))
                if before == after:
                    if before.settled(now):
                        self._remember(real, before, found)
                    return found
        raise IntegrityError(FILE_UNSTABLE.finding(f"{path} changed during each read"))

    def known(self, path: Path) -> str | None:
        """The remembered digest of a file in its present state; it is not read."""
        real = Path(os.path.realpath(path))
        try:
            return self._recall(real, Stamp.of(real.stat()))
        except OSError:
            return None

    def record(self, path: Path, digest: str) -> None:
        """Remember ``digest`` for a file that this process itself wrote, hashed and closed, and
        that is never written in place: its age does not matter."""
        real = Path(os.path.realpath(path))
        try:
            self._remember(real, Stamp.of(real.stat()), digest)
        except OSError:
            return  # a memo only saves time

    def sweep(self) -> None:
        """Remove memos of files that are gone, and the remains of killed writers."""
        for memo in self.directory.glob("*/*"):
            try:
                if memo.name.startswith(_TEMPORARY):
                    gone = memo.stat().st_mtime < time.time() - 3600
                else:
                    line = _parse(memo.read_bytes()[:_MEMO_LIMIT])
                    gone = line is None or not Path(line[0]).exists()
                if gone:
                    memo.unlink()
            except OSError:
                continue

    def _recall(self, real: Path, stamp: Stamp) -> str | None:
        here = self._here.get(str(real))
        if here is not None and here[0] == stamp:
            return here[1]
        try:
            with self._memo(real).open("rb") as stream:
                line = _parse(stream.read(_MEMO_LIMIT))
        except OSError:
            return None
        if line is None or line[0] != str(real) or line[1] != stamp:
            return None
        self._here[str(real)] = (stamp, line[2])
        return line[2]

    def _remember(self, real: Path, stamp: Stamp, digest: str) -> None:
        self._here[str(real)] = (stamp, digest)
        memo = self._memo(real)
        temporary = memo.with_name(_TEMPORARY + secrets.token_hex(8))
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(_line(str(real), stamp, digest))
            temporary.replace(memo)
        except OSError as error:
            _log.debug("no memo for %s: %s", real, error)
            try:
                temporary.unlink(missing_ok=True)
            except OSError:
                return

    def _memo(self, real: Path) -> Path:
        name = hashlib.sha256(os.fsencode(real)).hexdigest()
        return self.directory / name[:2] / name


def _line(real: str, stamp: Stamp, digest: str) -> bytes:
    body = json.dumps([1, real, list(astuple(stamp)), digest]).encode()
    return sha256_bytes(body).encode() + b" " + body


def _parse(data: bytes) -> tuple[str, Stamp, str] | None:
    checksum, _, body = data.partition(b" ")
    if checksum != sha256_bytes(body).encode():
        return None
    # The checksum fits, so these are our own bytes; another version's are ignored.
    row = json.loads(body)
    if row[0] != 1 or not is_digest(row[3]):
        return None
    return row[1], Stamp(*row[2]), row[3]
