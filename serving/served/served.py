"""The adapters that a manifest says, followed and verified; no engine needed."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from ...manifests.findings import serving as codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, AttachError, UsageError
from ...manifests.findings.finding import Finding, Severity
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.store.store import Store
from ..copies.copies import Copies
from ..targets.target import Target
from .aliases import follows_aliases
from .follower import Follower, Marks
from .location import Found, Location
from .memory import Memory
from .prepare import Prepared, Preparing
from .reader import Reader, Require
from .state import (
    BEHIND,
    REFUSED,
    SERVING,
    STARTING,
    SWITCHED,
    UNCHANGED,
    Looked,
    Refusal,
    ServedAdapter,
    Serving,
    Wanted,
)
from .status import metrics_text, status_of

__all__ = ["Looked", "OnChange", "Refusal", "Served", "ServedAdapter"]

_log = logging.getLogger("adapterdock")

PERIOD = 30.0
"""Seconds between two looks at the manifest."""

OnChange = Callable[[Mapping[str, ServedAdapter], Mapping[str, ServedAdapter]], None]
"""Called before a switch with what is new or changed, and with everything that will be served.
What it raises keeps the old."""


class Served(AbstractContextManager["Served"]):
    """The adapters of a manifest, as they are served now.

    A look reads the manifest and its lock, pulls and verifies what they pin, checks it (also for
    ``target``, and its values), makes private read-only copies, and then switches completely or
    not at all. Whatever fails keeps the old, and :meth:`status` says why. Every method may be
    called from any thread; looks are made one at a time.

    The lock decides. An alias of a registry (``registry://team/refunds@prod``) is followed beyond
    it: a newer value, with an unbroken history and the signatures that policies demand, is
    checked as ``adapterdock lock --upgrade`` does, and served. A value that is refused keeps the
    one before, for this adapter only.

    What is served is remembered in the store. The first look after a restart goes on with it: with
    the aliases that were followed, and, where the manifest is at a URL that is out of reach, with
    the manifest and the lock that were served. All of it is verified and checked again.

    Args:
        manifest: The manifest's path or URL (``s3://``, ``https://``, ``hf://``, and all else that
            sources may be). Its lock is beside it.
        target: The engine that will serve, whose limits count.
        period: Seconds between two looks of :meth:`follow`.
        store: Where fetched files are kept; the user's cache by default.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept, beside those of the lock.
        offline: Use no network.
        folder: Where private copies are kept; a folder in the store by default.
        on_change: See :data:`OnChange`.
        require: Called with each new manifest and its lock, before anything of them is pulled;
            what it raises refuses them.
        follow_aliases: Whether aliases are followed beyond the lock; by default as
            ADAPTERDOCK_FOLLOW says (``aliases``, which is the default, or ``lock``).

    Raises:
        UsageError: An invalid period, code to accept, or value of ADAPTERDOCK_FOLLOW.
        StoreError: There is no place for copies.
    """

    def __init__(
        self,
        manifest: str | os.PathLike[str],
        *,
        target: Target | None = None,
        period: float = PERIOD,
        store: Store | None = None,
        policy: str | os.PathLike[str] | None = None,
        accept: Iterable[str] = (),
        offline: bool = False,
        folder: Path | None = None,
        on_change: OnChange | None = None,
        require: Require | None = None,
        follow_aliases: bool | None = None,
    ) -> None:
        if not period > 0 or math.isinf(period):
            raise UsageError(
                usage_codes.BAD_INTERVAL.finding(
                    f"Invalid period {period}", found=period, expected="seconds, above 0"
                )
            )
        self._location = Location(os.fspath(manifest), offline=offline)
        self._target = target
        self._period = period
        store = store or Store.default()
        self._copies = Copies(store, folder)
        engine = "" if target is None else target.engine.name
        self._reader = Reader(
            Memory(self._location, engine, folder or store.root / "serving"),
            Preparing(self._copies, target),
            self._intact,
            require or _anything,
            store=store,
            policy=policy,
            accept=tuple(accept),
            offline=offline,
            aliases=follows_aliases(follow_aliases),
        )
        self._on_change = on_change
        self._looking = threading.RLock()
        self._following = threading.Lock()
        self._now = Serving()
        self._notes: tuple[Finding, ...] = ()
        self._followers: list[Follower] = []

    # -- what is served ----------------------------------------------------------------------

    def resolve(self, name: str) -> ServedAdapter | Refusal:
        """What is served under ``name`` now, or why nothing is.

        Args:
            name: Of an adapter or a composition.

        Returns:
            The adapter, or the findings. They name no other adapter.
        """
        now = self._now
        if (found := now.adapters.get(name)) is not None:
            return found
        if (findings := now.refused.get(name)) is not None:
            return Refusal(findings)
        said = f"{name[:100]!r} is not served"
        if now.state == STARTING:
            return Refusal((codes.NOT_SERVED.finding(said, found="no look was made yet"),))
        return Refusal((codes.NOT_SERVED.finding(said),))

    def current(self) -> Mapping[str, ServedAdapter]:
        """Everything that is served, by name: one mapping that never changes."""
        return self._now.adapters

    def status(self) -> dict[str, Any]:
        """Plain data with the schema ``adapterdock.status/1``."""
        return status_of(self._now, self._location.text, self._target)

    def metrics(self) -> str:
        """The metrics, in Prometheus' text format."""
        return metrics_text(self._now)

    @property
    def period(self) -> float:
        """Seconds between two looks of :meth:`follow`."""
        return self._period

    # -- looking -----------------------------------------------------------------------------

    def start(self) -> None:
        """Make the first look.

        Raises:
            AdapterdockError: Why nothing can be served. Nothing is.
        """
        with self._looking:
            looked, error = self._look()
        if error is not None and looked.result == REFUSED:
            raise error

    def look(self) -> Looked:
        """Make one look at the manifest, and switch if it changed.

        Returns:
            What was found. What fails keeps the old, and raises nothing.
        """
        with self._looking:
            return self._look()[0]

    def follow(self) -> None:
        """Look again each period, and soon after a local file changed, in a daemon thread."""
        with self._following:
            self._followers = [one for one in self._followers if one.is_alive]
            if all(one.is_stopping for one in self._followers):
                name = f"adapterdock {self._location.text}"
                self._followers.append(Follower(self.look, self._marks, self._period, name))

    def close(self) -> None:
        """Stop following. A look that is being made is finished first, so not in a thread that
        ``on_change`` waits for, such as that of an event loop. What is served, and its copies, stay
        until the process ends."""
        with self._following:
            followers = tuple(self._followers)
        for follower in followers:  # one that another thread stops is waited for too
            follower.stop()
        with self._looking:
            self._location.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one look ----------------------------------------------------------------------------

    def _look(self) -> tuple[Looked, AdapterdockError | None]:
        try:
            return self._looked(), None
        except AdapterdockError as error:
            return self._refused(error), error
        except Exception as error:
            _log.exception("A look at %s failed", self._location.text)
            found = f"{type(error).__name__}: {error}"
            broken = AttachError(
                codes.LOOK_FAILED.finding(f"A look at the manifest failed: {found}")
            )
            broken.__cause__ = error
            return self._refused(broken), broken

    def _looked(self) -> Looked:
        read = self._reader.read(self._want)
        changed: tuple[str, ...] = ()
        removed: tuple[str, ...] = ()
        if read.prepared is not None:
            changed, removed = self._switch(read.prepared)
            self._notes = self._location.shown(_notes_of(read.prepared))
        self._reader.take(read)
        trouble = self._location.shown(read.trouble)
        behind = any(finding.severity is not Severity.WARNING for finding in trouble)
        return self._say(
            BEHIND if behind else SERVING,
            SWITCHED if changed or removed else UNCHANGED,
            (*trouble, *self._notes),
            changed,
            removed,
        )

    def _switch(self, prepared: Prepared) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Serve what was prepared, from one moment to the next; the names that are new or changed,
        and those that are gone."""
        old, at = self._now.adapters, time.time()
        wanted: dict[str, ServedAdapter] = {}
        for name, one in prepared.adapters.items():
            before = old.get(name)
            same = before is not None and (before.digest, before.path) == (one.digest, one.path)
            wanted[name] = before if before is not None and same else replace(one, since=at)
        changed = {name: one for name, one in wanted.items() if old.get(name) is not one}
        removed = tuple(sorted(old.keys() - wanted.keys()))
        everything = _frozen(wanted)
        if not changed and not removed:
            self._now = replace(self._now, refused=_frozen(prepared.refused))
            return (), ()
        self._tell(_frozen(changed), everything)
        self._now = replace(
            self._now,
            adapters=everything,
            refused=_frozen(prepared.refused),
            switches=self._now.switches + 1,
        )
        self._copies.serve(self._digests())
        return tuple(sorted(changed)), removed

    def _tell(
        self, changed: Mapping[str, ServedAdapter], everything: Mapping[str, ServedAdapter]
    ) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(changed, everything)
        except AdapterdockError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:1000]
            raise AttachError(
                codes.ENGINE_REFUSED.finding(f"The engine did not take the adapters: {said}")
            ) from error

    # -- what is said of it --------------------------------------------------------------------

    def _want(self, found: Found, lock: Lock) -> None:
        base, model = lock.base, found.file.manifest.base.model
        fingerprint = base.fingerprint if base else None
        digests = {name: one.digest for name, one in lock.adapters.items() if one.digest}
        digests |= {name: one.digest for name, one in lock.compositions.items() if one.digest}
        self._now = replace(
            self._now,
            wanted=Wanted(
                found.manifest_sha256,
                found.lock_sha256,
                None if model is None else str(model),
                None
                if fingerprint is None
                else fingerprint.model_dump(mode="json", exclude_none=True),
                _frozen(digests),
                _frozen(
                    {
                        n: one.digest
                        for n, one in found.locked.adapters.items()
                        if lock.adapters[n].digest != one.digest
                    }
                ),
            ),
        )

    def _refused(self, error: AdapterdockError) -> Looked:
        findings = self._location.shown(error.findings)
        state = STARTING if self._now.state == STARTING else BEHIND
        return self._say(state, REFUSED, findings)

    def _say(
        self,
        state: str,
        result: str,
        findings: tuple[Finding, ...],
        changed: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
    ) -> Looked:
        before, at = self._now, time.time()
        looks = {**before.looks, result: before.looks[result] + 1}
        self._now = replace(
            before, state=state, findings=findings, checked=at, looks=_frozen(looks)
        )
        told = {
            "event": "look",
            "result": result,
            "state": state,
            "manifest": self._location.text,
            "changed": list(changed),
            "removed": list(removed),
            "codes": [finding.code for finding in findings],
        }
        if result == SWITCHED:
            said = ", ".join(f"{n} {self._now.adapters[n].digest[:19]}" for n in changed)
            gone = f"; gone: {', '.join(removed)}" if removed else ""
            _log.info("%s: serving %s%s", self._location.text, said or "less", gone, extra=told)
        if state == SERVING and before.state == BEHIND:
            _log.info("%s is served as it says again", self._location.text, extra=told)
        if findings != before.findings:
            wrong = [f for f in findings if f.severity is not Severity.WARNING]
            kept = "; the old adapters are still served" if state == BEHIND else ""
            for finding in findings:
                level = logging.ERROR if finding in wrong and state == BEHIND else logging.WARNING
                _log.log(level, "%s%s\n%s", self._location.text, kept, finding, extra=told)
        return Looked(result, changed, removed, findings, at)

    def _digests(self) -> frozenset[str]:
        """Of the copies that are served; a folder's name is its digest."""
        return frozenset(f"sha256:{one.path.name}" for one in self._now.adapters.values())

    def _intact(self) -> bool:
        return all(self._copies.intact(digest) for digest in self._digests())

    def _marks(self) -> Marks:
        return self._location.marks()


def _anything(file: ManifestFile, lock: Lock) -> None:
    """Every manifest may be served."""


def _notes_of(prepared: Prepared) -> tuple[Finding, ...]:
    """What a person must know of what is served, and why some names are not."""
    refused = (finding for findings in prepared.refused.values() for finding in findings)
    return tuple(dict.fromkeys((*refused, *prepared.findings)))


K = TypeVar("K")
V = TypeVar("V")


def _frozen(values: Mapping[K, V]) -> Mapping[K, V]:
    return MappingProxyType(dict(values))
