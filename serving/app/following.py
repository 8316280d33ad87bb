"""Follows the manifest while the model answers.

The loader plans and applies the difference on the running model, for adapters of every method and
every kind of composition, all or nothing; a running batch ends with the old set. So the loader's
plan is used here, and not the folders that ``serving.served`` makes for engines; aliases of a
registry are followed as it does, past the lock (ADAPTERDOCK_FOLLOW). The loader's own ``watch``
looks at files only: an alias or a folder elsewhere changes without them, so this one looks again
after a while too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...loader.lifecycle.change import apply_plan, plan_change
from ...manifests.findings import changing as codes
from ...manifests.findings.errors import AdapterdockError, AttachError
from ...manifests.findings.finding import Finding
from ...manifests.language.schema import Policy
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.session import session_for
from ...registry.files.disk import FileMark, file_mark
from ...registry.locks.project import policies_in_force
from ...registry.locks.state import require_lock
from ..served.aliases import (
    moved,
    newer_entries,
    take_up,
    upgraded,
    with_followed,
)
from .loaded import Loaded

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
        followed: By name of an adapter whose alias is newer than the lock, the lock's digest.
        findings: Why the last look did not make everything as the manifest says.
        checked: When the last look was (seconds since the epoch).
        manifest: Digest of the manifest's bytes.
        lock_digest: The same of the lock's; ``None`` where there is no file.
        policies: Those in force.
    """

    adapters: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    followed: Mapping[str, str] = field(default_factory=dict)
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
        loaded: The model, as it was loaded from the manifest.
        period: Seconds between two looks without a change of the files.
        on_look: Called with ``unchanged``, ``switched`` or ``refused`` after each look.
        **options: ``policy``, ``accept``, ``frozen``, ``offline``, as for ``load``.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        period: float = 30.0,
        on_look: Callable[[str], object] = lambda result: None,
        **options: Any,
    ) -> None:
        self.engine, self._memory, self._found = loaded.engine, loaded.memory, loaded.found
        self._place, self._period = loaded.memory.location, period
        self._on_look, self._options = on_look, options
        self._aliases = loaded.aliases
        self._stopping = threading.Event()
        self._one = threading.Lock()
        self._marks = self._read_marks()
        self.standing = Standing()
        deployment = self.engine.host.deployment
        assert deployment is not None
        policies = policies_in_force(deployment.file, options.get("policy"))
        self.standing = self._served(deployment.pulled.lock, policies, loaded.away)
        self._say(())
        self._memory.keep(self._found, self._memory.followed if self._aliases else {})
        self._thread = threading.Thread(target=self._follow, name="adapterdock follow", daemon=True)

    @property
    def location(self) -> str:
        """Of the manifest, as it was named, without secrets."""
        return self._place.text

    def take_up(self) -> None:
        """Serve what was followed before the start; no registry is asked. What cannot be served
        any more is in ``standing.findings``."""
        lock = self._found.lock
        if lock is None or not self._aliases:
            return
        file, before = self._found.file, self.standing.findings
        served, wrong = take_up(
            file, lock, self._memory.followed, lambda newer: self._apply(file, newer)
        )
        if served == lock and not wrong:
            return
        self._memory.keep(self._found, newer_entries(lock, served))
        findings = (*before, *self._place.shown(wrong))
        self.standing = self._served(served, self.standing.policies, findings)
        self._say(before)

    def start(self) -> None:
        """Follow in a daemon thread."""
        self._thread.start()

    def close(self, seconds: float = _PATIENCE) -> None:
        """Stop; a change that is being applied is finished first, if that takes no longer."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if not self._thread.is_alive():
            self._place.close()

    def look(self) -> str:
        """Make the model as the manifest says: ``unchanged``, ``switched`` or ``refused``.

        What fails leaves the old adapters, and is in ``standing.findings``.
        """
        with self._one:
            before = self.standing.findings
            try:
                result = self._changed()
            except AdapterdockError as error:
                result = self._refused(error)
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                result = self._refused(AttachError(codes.WATCH_BROKE_OFF.finding(message)))
            self._say(before)
            self._on_look(result)
            return result

    # -- one look --------------------------------------------------------------------------

    def _changed(self) -> str:
        self._found = found = self._place.read()
        file = found.file
        policies = policies_in_force(file, self._options.get("policy"))
        known, newer, trouble = self._locks(file, found.lock)
        try:
            lock, changes = self._apply(file, newer)
        except AdapterdockError as error:
            if newer == known:
                raise
            # what was promoted cannot be served: everything else still can
            trouble += error.findings
            lock, changes = self._apply(file, known)
        beside = found.lock
        self._memory.keep(found, {} if beside is None else newer_entries(beside, lock))
        self.standing = self._served(lock, policies, self._place.shown(trouble))
        return "switched" if changes else "refused" if trouble else "unchanged"

    def _apply(self, file: ManifestFile, lock: Lock | None) -> tuple[Lock, bool]:
        """Make the model as the manifest says under this lock; whether anything changed."""
        host = self.engine.host
        plan = plan_change(host, file, lock=lock, **self._options)
        if plan:
            apply_plan(host, plan)
            self.engine.changed()
            log.info("%s: applied\n%s", self.location, plan, extra=self._told("switched", ()))
        return plan.lock, bool(plan)

    def _locks(
        self, file: ManifestFile, beside: Lock | None
    ) -> tuple[Lock | None, Lock | None, tuple[Finding, ...]]:
        """The lock with what was followed before, the same with newer values of its aliases, and
        why some are not followed. ``None`` where the lock beside the manifest alone counts, or
        there is none."""
        require_lock(file, beside, frozen=bool(self._options.get("frozen")))
        if beside is None or not self._aliases:
            return None, None, ()
        session = session_for(file, store=self.engine.host.session.store, **self._options)
        known = newer = with_followed(file, beside, self._memory.followed)
        news = moved(file, known, session)
        trouble = [*news.findings]
        for name in news.values:
            try:
                newer = upgraded(file, newer, [name], session)
            except AdapterdockError as error:
                trouble += error.findings
        return known, newer, tuple(trouble)

    def _refused(self, error: AdapterdockError) -> str:
        lock = self._found.lock
        self.standing = replace(
            self.standing,
            wanted=self.standing.wanted if lock is None else digests_of(lock),
            findings=self._place.shown(error.findings),
            checked=time.time(),
            manifest=self._found.manifest_sha256,
            lock_digest=self._found.lock_sha256,
        )
        return "refused"

    def _served(
        self, lock: Lock, policies: tuple[Policy, ...], findings: Iterable[Finding] = ()
    ) -> Standing:
        now, before, beside = time.time(), self.standing.adapters, self._found.lock
        digests = digests_of(lock)
        known = {
            name: before[name] if before.get(name, ("",))[0] == digest else (digest, now)
            for name, digest in digests.items()
        }
        ahead = {} if beside is None else newer_entries(beside, lock)
        return Standing(
            known,
            digests,
            {n: beside.adapters[n].digest or "" for n in ahead} if beside is not None else {},
            tuple(dict.fromkeys(findings)),
            now,
            self._found.manifest_sha256,
            self._found.lock_sha256,
            policies,
        )

    def _say(self, before: tuple[Finding, ...]) -> None:
        """Log what is wrong once, and when it is over: where the one is seen, so is the other."""
        findings = self.standing.findings
        if findings == before:
            return
        if findings:
            said = "\n".join(map(str, findings))
            told = self._told("refused", findings)
            log.error(
                "Cannot follow %s completely; the rest stays as it is\n%s",
                self.location,
                said,
                extra=told,
            )
        else:
            told = self._told("unchanged", findings)
            log.warning("%s is served as it says again", self.location, extra=told)

    def _told(self, result: str, findings: Iterable[Finding]) -> dict[str, Any]:
        """What a line of the log says beside its text, as the follower for engines does."""
        codes = [finding.code for finding in findings]
        state = "behind" if codes else "serving"
        place = self.location
        return {
            "event": "look",
            "result": result,
            "state": state,
            "manifest": place,
            "codes": codes,
        }

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

    def _read_marks(self) -> Mapping[str, FileMark]:
        policy = self._options.get("policy")
        more = {str(policy): file_mark(Path(policy))} if policy else {}
        return {**self._place.marks(), **more}


def digests_of(lock: Lock) -> dict[str, str]:
    """The digests of a lock's adapters and compositions, by name."""
    found = {name: one.digest for name, one in lock.adapters.items()}
    found |= {name: one.digest for name, one in lock.compositions.items()}
    return {name: digest or "" for name, digest in found.items()}
