"""Which process made a temporary file or a mark, and whether it still runs.

So leftovers of killed processes can be removed without a lock. A process id only has a meaning
inside its own pid namespace, so the name also contains a digest of host, boot and namespace.
Nothing is known of processes elsewhere, where only age decides.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ELSEWHERE_AGE = 86400.0
"""Seconds without a change after which something made on another machine (or in another
container, or before the last boot) counts as left over."""

_NAME = re.compile(r"([0-9a-f]{12})\.(\d+)\.(\d+)\.[0-9a-f]+\Z")


@dataclass(frozen=True)
class Owner:
    """A process: the space of its id, the id, and when it started (0: not known)."""

    space: str
    pid: int
    started: int

    @classmethod
    def me(cls) -> Owner:
        """This process (determined at each call: a fork is another one)."""
        pid = os.getpid()
        return cls(_space(), pid, _started(pid))

    @classmethod
    def of(cls, name: str) -> Owner | None:
        """The owner of ``name``, or ``None`` if :meth:`new_name` did not make it."""
        match = _NAME.match(name)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def new_name(self) -> str:
        """A file name that nobody else uses, and that names its owner."""
        return f"{self.space}.{self.pid}.{self.started}.{secrets.token_hex(6)}"

    def alive(self) -> bool | None:
        """Whether the process runs; ``None`` if that is not known here."""
        if self.space != _space():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass  # it runs as another user, or this is not known
        return self.started == _started(self.pid)

    def abandoned(self, age: float) -> bool:
        """Whether something that it last changed ``age`` seconds ago is left over."""
        alive = self.alive()
        return age > ELSEWHERE_AGE if alive is None else not alive


def made_beside(path: Path, what: str, suffix: str = "") -> Path:
    """A hidden path in the same folder that nobody else uses, and that names its owner."""
    return path.with_name(f"{_beside(path, what)}{Owner.me().new_name()}{suffix}")


def left_beside(path: Path, what: str, suffix: str = "") -> list[Path]:
    """Paths of :func:`made_beside` here whose processes no longer run, sorted."""
    start = _beside(path, what)
    try:
        entries = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if entry.name.startswith(start)
        and (owner := Owner.of(entry.name[len(start) :].removesuffix(suffix))) is not None
        and owner.abandoned(_age(entry))
    ]


def _beside(path: Path, what: str) -> str:
    return f".{path.name[:100]}.{what}-" if what else f".{path.name[:100]}."


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


@cache
def _space() -> str:
    parts = [socket.gethostname(), _text("/proc/sys/kernel/random/boot_id")]
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _started(pid: int) -> int:
    # Field 22 of /proc/PID/stat, in clock ticks since boot; the name in field 2 may contain spaces.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) <= 19:
        return 0
    return -1 if fields[0] in "ZX" else int(fields[19])  # a zombie no longer runs


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
