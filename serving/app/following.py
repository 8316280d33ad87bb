"""Follows the manifest while the model answers.

The loader plans and applies the difference on the running model, for adapters of every method and
every kind of composition, all or nothing; a running batch ends with the old set. So the loader's
plan is used here, and not the folders that ``serving.served`` makes for engines; aliases of a
registry are followed as it does, past the lock (ADAPTERDOCK_FOLLOW). The loader's own ``watch``
looks at files only: an alias or a folder elsewhere changes without them, so this one looks again
after a while too.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...loader.lifecycle.change import apply_plan, overrides_of, plan_change
from ...manifests.findings import changing as codes
from ...manifests.findings.errors import AdapterdockError, AttachError
from ...manifests.findings.finding import Finding
from ...manifests.language.schema import Policy
from ...manifests.lockfile import Lock, LockedAdapter, lock_path
from ...manifests.manifest import ManifestFile
from ...registry.access.session import session_for
from ...registry.locks.project import lock_of, open_manifest, policies_in_force
from ...registry.locks.state import overridden, require_lock
from ..served.aliases import follows_aliases, moved, newer_entries, upgraded, with_followed
from .engine import Engine

log = logging.getLogger("adapterdock")

POLL = 1.0
"""Seconds between two looks at whether the files changed."""
_PATIENCE = 10.0
"""Seconds that :meth:`Follower.close` waits for a look, which may wait for a network."""
SETTLE = 0.2
"""Seconds without a change after which files count as completely written."""


@dataclass(frozen=True)
class Standing:
    """What is served and what should be, replaced by one assignment.

    Args:
        adapters: By name, digest and since when (seconds since the epoch).
        wanted: By name, the digest that the lock says.
        findings: Why the last look changed nothing.
        checked: When the last look was (seconds since the epoch).
        manifest: Digest of the manifest's bytes.
        lock_digest: The same of the lock's; ``None`` where there is no file.
        policies: Those in force.
    """

    adapters: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    checked: float = 0.0
    manifest: str | None = None
    lock_digest: str | None = None
    policies: tuple[Policy, ...] = ()

    @property
    def behind(self) -> bool:
        """Whether the manifest says something else than what is served."""
        return bool(self.findings)


class Follower:
    """Keeps a model as its manifest says, until :meth:`close`.

    Args:
        engine: The model, loaded from the manifest.
        path: The manifest.
        period: Seconds between two looks without a change of the files.
        on_look: Called with ``unchanged``, ``switched`` or ``refused`` after each look.
        **options: ``policy``, ``accept``, ``frozen``, ``offline``, as for ``load``.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        *,
        period: float = 30.0,
        on_look: Callable[[str], object] = lambda result: None,
        **options: Any,
    ) -> None:
        self.engine, self._path, self._period = engine, path, period
        self._on_look, self._options = on_look, options
        self._stopping = threading.Event()
        self._one = threading.Lock()
        self._marks = self._read_marks()
        self._followed: Mapping[str, LockedAdapter] = {}
        self.standing = Standing()
        deployment = engine.host.deployment
        assert deployment is not None
        policies = policies_in_force(deployment.file, options.get("policy"))
        self.standing = self._served(deployment.pulled.lock, policies)
        self._thread = threading.Thread(target=self._follow, name="adapterdock follow", daemon=True)

    def start(self) -> None:
        """Follow in a daemon thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a change that is being applied is finished first, if that does not take long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def look(self) -> str:
        """Make the model as the manifest says: ``unchanged``, ``switched`` or ``refused``.

        What fails leaves the old adapters, and is in ``standing.findings``.
        """
        with self._one:
            try:
                result = self._changed()
            except AdapterdockError as error:
                result = self._refused(error)
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                result = self._refused(AttachError(codes.WATCH_BROKE_OFF.finding(message)))
            self._on_look(result)
            return result

    # -- one look --------------------------------------------------------------------------

    def _changed(self) -> str:
        host = self.engine.host
        file = open_manifest(self._path, **overrides_of(host))
        policies = policies_in_force(file, self._options.get("policy"))
        known, newer, trouble = self._locks(file)
        try:
            lock, changes = self._apply(file, newer)
        except AdapterdockError as error:
            if newer == known:
                raise
            # what was promoted cannot be served: everything else still can
            trouble += error.findings
            lock, changes = self._apply(file, known)
        beside = lock_of(file)
        self._followed = {} if beside is None else newer_entries(beside, lock)
        self.standing = self._served(lock, policies, trouble)
        return "switched" if changes else "refused" if trouble else "unchanged"

    def _apply(self, file: ManifestFile, lock: Lock | None) -> tuple[Lock, bool]:
        """Make the model as the manifest says under this lock; whether anything changed."""
        host = self.engine.host
        plan = plan_change(host, file, lock=lock, **self._options)
        if plan:
            apply_plan(host, plan)
            self.engine.changed()
            log.info("%s: applied\n%s", self._path, plan)
        return plan.lock, bool(plan)

    def _locks(self, file: ManifestFile) -> tuple[Lock | None, Lock | None, tuple[Finding, ...]]:
        """The lock beside the manifest with what was followed before, the same with newer values of
        its aliases, and why some are not followed. ``None`` where there is no lock."""
        beside = lock_of(file)
        require_lock(file, beside, frozen=bool(self._options.get("frozen")))
        if beside is None or overridden(file, beside) or not follows_aliases(None):
            return None, None, ()
        session = session_for(file, store=self.engine.host.session.store, **self._options)
        known = newer = with_followed(file, beside, self._followed)
        news = moved(file, known, session)
        trouble = [*news.findings]
        for name in news.values:
            try:
                newer = upgraded(file, newer, [name], session)
            except AdapterdockError as error:
                trouble += error.findings
        return known, newer, tuple(trouble)

    def _refused(self, error: AdapterdockError) -> str:
        if error.findings != self.standing.findings:
            log.error("Cannot follow %s; the adapters stay as they are\n%s", self._path, error)
        now = self.standing
        self.standing = Standing(
            now.adapters,
            self._wanted() or now.wanted,
            error.findings,
            time.time(),
            _digest(self._path),
            _digest(lock_path(self._path)),
            now.policies,
        )
        return "refused"

    def _wanted(self) -> Mapping[str, str]:
        """What the lock says, if it can be read."""
        try:
            lock = lock_of(open_manifest(self._path, **overrides_of(self.engine.host)))
        except AdapterdockError:
            return {}
        return {} if lock is None else digests_of(lock)

    def _served(
        self, lock: Lock, policies: tuple[Policy, ...], findings: tuple[Finding, ...] = ()
    ) -> Standing:
        now, before = time.time(), self.standing.adapters
        digests = digests_of(lock)
        known = {
            name: before[name] if before.get(name, ("",))[0] == digest else (digest, now)
            for name, digest in digests.items()
        }
        return Standing(
            known,
            digests,
            findings,
            now,
            _digest(self._path),
            _digest(lock_path(self._path)),
            policies,
        )

    # -- in the thread ---------------------------------------------------------------------

    def _follow(self) -> None:
        self.look()  # an alias may be newer than the lock already
        looked = time.monotonic()
        while not self._stopping.wait(min(POLL, self._period)):
            marks = self._read_marks()
            if marks != self._marks:
                if self._stopping.wait(SETTLE):
                    return
                if self._read_marks() != marks:
                    continue  # it is being written
            elif time.monotonic() - looked < self._period:
                continue
            self._marks = marks
            self.look()
            looked = time.monotonic()

    def _read_marks(self) -> Mapping[Path, tuple[int, ...] | None]:
        deployment = self.engine.host.deployment
        files = deployment.file.files if deployment else ()
        policy = self._options.get("policy")
        paths = [self._path, lock_path(self._path), *files, *([Path(policy)] if policy else [])]
        return {path: _mark(path) for path in paths}


def digests_of(lock: Lock) -> dict[str, str]:
    """The digests of a lock's adapters and compositions, by name."""
    found = {name: one.digest for name, one in lock.adapters.items()}
    found |= {name: one.digest for name, one in lock.compositions.items()}
    return {name: digest or "" for name, digest in found.items()}


def _digest(path: Path) -> str | None:
    try:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        return None


def _mark(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does; ``None`` for a missing file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
