"""One look's reading: the manifest, its lock, what aliases point to now, and all of it prepared."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...manifests.bounds import MANIFEST_BYTES
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...manifests.reading.bounded_file import read_at_most
from ...registry.access.session import Session, session_for
from ...registry.locks.project import POLICY_VARIABLE
from ...registry.locks.state import require_lock
from ...registry.pull import require_policy
from ...registry.store.store import Store
from .aliases import Moved, is_lasting, moved, newer_entries, take_up, upgraded, with_followed
from .location import Found
from .memory import Memory
from .prepare import Prepared, Preparing


@dataclass(frozen=True)
class Inputs:
    """What decides what is served. Where it is the same, there is nothing to do."""

    manifest_sha256: str
    lock_sha256: str | None
    lock: Lock
    policies: tuple[str | None, ...]

    @property
    def digests(self) -> tuple[str, str | None]:
        """Of the files that were read."""
        return self.manifest_sha256, self.lock_sha256


@dataclass(frozen=True)
class Read:
    """The result of one reading.

    Args:
        found: The manifest and its lock.
        inputs: With the lock that is obeyed: that one, with newer values of aliases.
        prepared: What can be served; ``None`` where that is what was taken last.
        trouble: Why an alias is not followed, and why the manifest is the remembered one.
    """

    found: Found
    inputs: Inputs
    prepared: Prepared | None
    trouble: tuple[Finding, ...]


Require = Callable[[ManifestFile, Lock], None]
"""Raises :class:`AdapterdockError` for a manifest and a lock that may not be served here."""


class Reader:
    """Reads again and again. ``intact`` says whether the copies that are served are still whole;
    ``require`` is called with each new manifest and lock, before anything of them is pulled."""

    def __init__(
        self,
        memory: Memory,
        preparing: Preparing,
        intact: Callable[[], bool],
        require: Require,
        *,
        store: Store,
        policy: str | os.PathLike[str] | None,
        accept: tuple[str, ...],
        offline: bool,
        aliases: bool,
    ) -> None:
        self._memory = memory
        self._preparing = preparing
        self._intact = intact
        self._require = require
        self._store = store
        self._policy = policy
        self._accept = accept
        self._offline = offline
        self._aliases = aliases
        self._taken: Inputs | None = None
        self._lasting: dict[tuple[str, str], tuple[Finding, ...]] = {}

    def read(self, say: Callable[[Found, Lock], None]) -> Read:
        """Read everything, and prepare what changed. ``say`` gets what is wanted, as soon as it is
        known. Raises :class:`AdapterdockError` where the manifest and its lock cannot be served."""
        found, away = self._memory.read()
        try:
            return self._read(found, away, say)
        except AdapterdockError as error:
            if not away:
                raise
            raise type(error)(*away, *error.findings) from error

    def take(self, read: Read) -> None:
        """Remember what is served from now on."""
        self._taken = read.inputs
        self._memory.keep(read.found, newer_entries(read.found.locked, read.inputs.lock))

    def _read(
        self, found: Found, away: tuple[Finding, ...], say: Callable[[Found, Lock], None]
    ) -> Read:
        file, lock, taken, trouble = found.file, found.locked, self._taken, [*away]
        session = session_for(
            file,
            policy=self._policy,
            accept=self._accept,
            frozen=True,
            offline=self._offline,
            store=self._store,
        )
        require_lock(file, lock, frozen=True)
        known, prepared = lock, None
        if taken is None:
            say(found, lock)
            self._require(file, lock)
            if self._aliases:
                known, prepared = self._taken_up(file, lock, session, trouble)
        else:
            known = with_followed(file, lock, self._memory.followed)
        say(found, known)
        require_policy(file, known, session.access)
        inputs = Inputs(found.manifest_sha256, found.lock_sha256, known, self._policies(file))
        if taken is not None and inputs.digests != taken.digests:
            self._require(file, lock)
        if prepared is None and (inputs != taken or not self._intact()):
            self._lasting.clear()
            prepared = self._preparing.prepare(file, known, session)
        if not self._aliases:
            return Read(found, inputs, prepared, tuple(trouble))
        news = moved(file, known, session)
        trouble += news.findings
        lock, newer = self._newer(file, known, news, session, trouble)
        if newer is not None:
            say(found, lock)
            inputs = Inputs(inputs.manifest_sha256, inputs.lock_sha256, lock, inputs.policies)
            prepared = newer
        return Read(found, inputs, prepared, tuple(dict.fromkeys(trouble)))

    def _taken_up(
        self, file: ManifestFile, lock: Lock, session: Session, trouble: list[Finding]
    ) -> tuple[Lock, Prepared | None]:
        """At the first look: ``lock`` with what was followed before the restart, prepared."""
        prepared: list[Prepared] = []

        def prepare(newer: Lock) -> None:
            require_policy(file, newer, session.access)
            prepared.append(self._preparing.prepare(file, newer, session))

        known, wrong = take_up(file, lock, self._memory.followed, prepare)
        trouble += wrong
        return known, prepared[-1] if prepared else None

    def _newer(
        self,
        file: ManifestFile,
        known: Lock,
        news: Moved,
        session: Session,
        trouble: list[Finding],
    ) -> tuple[Lock, Prepared | None]:
        """``known`` with all newer values of aliases that can be served, all at once or, where
        that fails, one by one."""
        fresh: list[str] = []
        for name, value in news.values.items():
            before = self._lasting.get((name, value.sha256))
            if before is None:
                fresh.append(name)
            else:
                trouble += before
        tries: Sequence[Sequence[str]] = [fresh] if fresh else []
        lock, prepared = known, None
        while tries:
            names, *rest = tries
            try:
                newer = upgraded(file, lock, names, session)
                lock, prepared = newer, self._preparing.prepare(file, newer, session)
            except AdapterdockError as error:
                if len(names) > 1:
                    rest = [[name] for name in names]
                else:
                    trouble += error.findings
                    if is_lasting(error.findings):
                        key = (names[0], news.values[names[0]].sha256)
                        self._lasting[key] = error.findings
            tries = rest
        return lock, prepared

    def _policies(self, file: ManifestFile) -> tuple[str | None, ...]:
        """What changes with the policies in force; the manifest's own are in its digest."""
        paths = [*file.files, self._policy, os.environ.get(POLICY_VARIABLE)]
        return tuple(_text(Path(path)) for path in paths if path)


def _text(path: Path) -> str | None:
    try:
        return read_at_most(path, MANIFEST_BYTES, regular=True).decode(errors="replace")
    except (OSError, ValueError):
        return None
