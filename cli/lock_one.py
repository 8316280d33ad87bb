"""One manifest locked by `adapterdock lock`, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..manifests.findings.finding import Finding, Severity
from .console import err
from .hints import completed
from .lock_changes import print_changes
from .progress import shown_progress
from .render import counted, print_findings

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..registry.locks.diff import Change


@dataclass(frozen=True)
class Locking:
    """What the command line asks for.

    Attributes:
        model: Replaces the base.
        dtype: Replaces its dtype.
        policy: A policy file that applies too.
        accept: Codes of unchecked findings that are accepted.
        offline: Keeps off the network.
        upgrade: Names of the pins that are taken again.
        upgrade_all: Whether all are.
        write: Whether the lock is written.
    """

    model: str | None = None
    dtype: str | None = None
    policy: Path | None = None
    accept: tuple[str, ...] = ()
    offline: bool = False
    upgrade: tuple[str, ...] = ()
    upgrade_all: bool = False
    write: bool = True


@dataclass(frozen=True)
class Locked:
    """The lock of one manifest.

    Attributes:
        path: Where the lock is.
        old: The lock before, if there was one.
        new: The lock now.
        notes: Warnings, and unchecked findings that were accepted.
        changes: What differs.
        wrote: Whether ``path`` was written.
    """

    path: Path
    old: Lock | None
    new: Lock
    notes: tuple[Finding, ...]
    changes: tuple[Change, ...]
    wrote: bool

    @property
    def pinned(self) -> str:
        """``3 adapters and the base``."""
        adapters = sum(not entry.mutable for entry in self.new.adapters.values())
        return counted(adapters, "adapter") + (" and the base" if self.new.base else "")

    def print(self) -> None:
        """Print the notes, what changed, and what was written."""
        print_findings(self.notes, err, self.new.accepted)
        print_changes(self.changes, self.old, self.new)
        if self.wrote:
            err.line(f"Wrote {self.path}: {self.pinned} pinned")
        elif self.changes:
            err.line("Nothing was written")
        else:
            err.line(f"{self.path} is current; nothing changed")

    def as_dict(self) -> dict[str, Any]:
        """Plain data; the keys are stable."""
        return {
            "lock": str(self.path),
            "wrote": self.wrote,
            "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in self.changes],
            "accepted": list(self.new.accepted),
            "findings": [f.as_dict() for f in completed(self.notes)],
        }


def lock_one(manifest: Path, wanted: Locking) -> Locked:
    """Lock one manifest. Raises what is wrong with it."""
    from ..manifests.lockfile import lock_path, write_lock
    from ..registry.access.session import session_for
    from ..registry.lock import make_lock
    from ..registry.locks.diff import diff
    from ..registry.locks.project import is_to_write, lock_to_replace, open_manifest

    file = open_manifest(manifest, model=wanted.model, dtype=wanted.dtype)
    path, old = lock_path(manifest), lock_to_replace(file)
    with shown_progress(f"Locking {manifest}") as progress:
        session = session_for(
            file,
            policy=wanted.policy,
            accept=wanted.accept,
            offline=wanted.offline,
            progress=progress,
        )
        new, resolution = make_lock(
            file, old, session, upgrade=wanted.upgrade, upgrade_all=wanted.upgrade_all
        )
    wrote = wanted.write and is_to_write(file, old, new)
    if wrote:
        write_lock(new, path)
    notes = tuple(f for f in resolution.findings if f.severity is not Severity.ERROR)
    return Locked(path, old, new, notes, tuple(diff(old, new)), wrote)
