"""One look's reading: the manifest, its lock, what aliases point to now, and all of it prepared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding
from ...manifests.lockfile import Lock, LockedAdapter
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session, session_for
from ...registry.locks.project import POLICY_VARIABLE
from ...registry.locks.state import require_lock
from ...registry.pull import require_policy
from ...registry.store.store import Store
from .aliases import Moved, is_lasting, moved, newer_entries, upgraded, with_followed
from .location import Found, Location
from .prepare import Prepared, Preparing


@dataclass(frozen=True)
class Inputs:
    """What decides what is served. Where it is the same, there is nothing to do."""

    manifest_sha256: str
    lock_sha256: str
    lock: Lock
    policies: tuple[str | None, ...]


@dataclass(frozen=True)
class Read:
    """The result of one reading.

    Args:
        found: The manifest and its lock.
        inputs: With the lock that is obeyed: that one, with newer values of aliases.
        prepared: What can be served; ``None`` where that is what was taken last.
        trouble: Why an alias is not followed.
    """

    found: Found
    inputs: Inputs
    prepared: Prepared | None
    trouble: tuple[Finding, ...]


class Reader:
    """Reads again and again. ``intact`` says whether the copies that are served are still whole."""

    def __init__(
        self,
        location: Location,
        preparing: Preparing,
        intact: Callable[[], bool],
        *,
        store: Store,
        policy: str | os.PathLike[str] | None,
        accept: tuple[str, ...],
        offline: bool,
        aliases: bool,
    ) -> None:
        self._location = location
        self._preparing = preparing
        self._intact = intact
        self._store = store
        self._policy = policy
        self._accept = accept
        self._offline = offline
        self._aliases = aliases
        self._taken: Inputs | None = None
        self._followed: Mapping[str, LockedAdapter] = {}
        self._lasting: dict[tuple[str, str], tuple[Finding, ...]] = {}

    def read(self, say: Callable[[Found, Lock], None]) -> Read:
        """Read everything, and prepare what changed. ``say`` gets what is wanted, as soon as it is
        known. Raises :class:`AdapterdockError` where the manifest and its lock cannot be served."""
        found = self._location.read()
        file = found.file
        session = session_for(
            file,
            policy=self._policy,
            accept=self._accept,
            frozen=True,
            offline=self._offline,
            store=self._store,
        )
        require_lock(file, found.lock, frozen=True)
        known = with_followed(file, found.lock, self._followed)
        say(found, known)
        require_policy(file, known, session.access)
        inputs = Inputs(found.manifest_sha256, found.lock_sha256, known, self._policies(file))
        prepared = None
        if inputs != self._taken or not self._intact():
            self._lasting.clear()
            prepared = self._preparing.prepare(file, known, session)
        if not self._aliases:
            return Read(found, inputs, prepared, ())
        news = moved(file, known, session)
        trouble = [*news.findings]
        lock, newer = self._newer(file, known, news, session, trouble)
        if newer is not None:
            say(found, lock)
            inputs = Inputs(inputs.manifest_sha256, inputs.lock_sha256, lock, inputs.policies)
            prepared = newer
        return Read(found, inputs, prepared, tuple(dict.fromkeys(trouble)))

    def take(self, read: Read) -> None:
        """Remember what is served from now on."""
        self._taken = read.inputs
        self._followed = newer_entries(read.found.lock, read.inputs.lock)

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
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
