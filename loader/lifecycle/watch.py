"""Follow a manifest: plan and apply its changes in the background."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ...manifests.findings import changing as codes
from ...manifests.findings import loader as loader_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, AttachError, UsageError
from ...manifests.lock_samples import samples_path
from ...manifests.lockfile import lock_path
from ...registry.files.disk import FileMark, file_mark
from ...registry.locks.project import open_manifest
from ...registry.plan import Plan
from ..model.deployment import InMemory
from ..model.stand_in import StandIn, host_of
from .change import apply_plan, overrides_of, plan_change

log = logging.getLogger("adapterdock")

INTERVAL = 2.0
"""Seconds between two checks of the files."""
SETTLE = 0.2
"""Seconds without a change after which a file counts as completely written."""
_LONGEST = 32
"""The longest wait before another try after an error, in intervals."""

Marks = Mapping[Path, FileMark]


def watch(
    model: StandIn,
    path: str | os.PathLike[str],
    *,
    interval: float = INTERVAL,
    on_change: Callable[[Plan], object] | None = None,
    on_error: Callable[[AdapterdockError], object] | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    sources: Mapping[str, InMemory] | None = None,
) -> Watch:
    """Follow the manifest at ``path``: apply it now, and whenever it, its lock or a file that it
    extends changes.

    A change that cannot be planned or applied leaves the model as it is. The error is logged,
    passed to ``on_error`` and kept as ``last_error``. It is tried again when a file changes, and
    after ever longer waits (up to 32 intervals).

    Args:
        model: The model to change, an :class:`AdaptedModel`.
        path: The manifest.
        interval: Seconds between two checks of the files, above 0.
        on_change: Called in the background thread with each plan that was applied.
        on_error: Called in the background thread with each new error.
        policy: A policy file that applies besides the manifest's own.
        accept: Codes of unchecked findings to accept.
        frozen: Whether to refuse a missing, stale or incomplete lock.
        offline: Whether to use no network.
        sources: Adapters in memory, by name; see :func:`load`.

    Returns:
        A handle. ``with`` stops following at the end of its block.

    Raises:
        UsageError: An invalid interval.
    """
    if not interval > 0 or interval == float("inf"):
        raise UsageError(
            usage_codes.BAD_INTERVAL.finding(
                f"Invalid interval {interval}", found=interval, expected="seconds, above 0"
            )
        )
    return Watch(
        model,
        Path(path),
        interval,
        on_change,
        on_error,
        policy=policy,
        accept=tuple(accept),
        frozen=frozen,
        offline=offline,
        sources=sources,
    )


class Watch(AbstractContextManager["Watch"]):
    """A model that follows a manifest, until :meth:`stop` or until the model is deleted.

    Attributes:
        path: The manifest.
        interval: Seconds between two checks of the files.
        last_error: Why the model does not follow the manifest at present, or ``None``.
        last_plan: The plan that was applied last, or ``None``.
    """

    def __init__(
        self,
        model: StandIn,
        path: Path,
        interval: float,
        on_change: Callable[[Plan], object] | None,
        on_error: Callable[[AdapterdockError], object] | None,
        **options: Any,
    ) -> None:
        self.path = path
        self.interval = interval
        self.last_error: AdapterdockError | None = None
        self.last_plan: Plan | None = None
        self._model = weakref.ref(model)
        self._options = options
        self._on_change = on_change
        self._on_error = on_error
        self._stopping = threading.Event()
        self._files: tuple[Path, ...] = ()
        self._last_settled: Marks | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"adapterdock watch {path}", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the model still follows the manifest."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop following. A change that is being applied is finished first."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- in the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        seen: Marks | None = None
        waited = retry = 0
        while True:
            marks = self._settled()
            if marks is None or self._model() is None:
                return
            due = retry and waited >= retry
            if marks != seen or due:
                retry = min(2 * retry, _LONGEST) if due else 1
                seen, waited = marks, 0
                if not self._follow(marks):
                    return
                if self.last_error is None:
                    retry = 0
                elif self._marks() != marks:
                    seen = None  # changed meanwhile: check again at once
            if self._stopping.wait(self.interval):
                return
            waited += 1

    def _settled(self) -> Marks | None:
        """The files' marks once they stay the same (half a manifest may be a valid manifest with
        fewer adapters); ``None`` to stop."""
        marks = self._marks()
        while not self._stopping.is_set():
            if marks == self._last_settled:
                return marks
            if self._stopping.wait(min(self.interval, SETTLE)):
                break
            again = self._marks()
            if again == marks:
                self._last_settled = marks
            marks = again
        return None

    def _marks(self) -> Marks:
        policy = self._options["policy"]
        lock = lock_path(self.path)
        paths = [self.path, lock, samples_path(lock), *self._files]
        paths += [Path(policy)] if policy else []
        return {path: file_mark(path) for path in paths}

    def _follow(self, marks: Marks) -> bool:
        """Plan and apply; ``False`` if the model is gone."""
        model = self._model()
        if model is None:
            return False
        host = host_of(model)
        try:
            file = open_manifest(self.path, **overrides_of(host))
            self._files = file.files
            plan = plan_change(host, file, **self._options)
            if any(file_mark(path) != mark for path, mark in marks.items()):
                return True  # it was read while being written: the next check sees it
            if plan:
                apply_plan(host, plan)
                self.last_plan = plan
                log.info("%s: applied\n%s", self.path, plan)
        except AdapterdockError as error:
            if error.code == loader_codes.MODEL_DETACHED.id:
                return False
            self._failed(error)
            return True
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            self._failed(AttachError(codes.WATCH_BROKE_OFF.finding(message)), error)
            return True
        if self.last_error is not None:
            log.warning("%s: the model follows it again", self.path)
        self.last_error = None
        if plan:
            self._call(self._on_change, plan)
        return True

    def _failed(self, error: AdapterdockError, cause: Exception | None = None) -> None:
        if str(error) == str(self.last_error):
            return  # reported already
        error.__cause__ = cause
        self.last_error = error
        log.error("Cannot follow %s; the adapters stay as they are\n%s", self.path, error)
        self._call(self._on_error, error)

    def _call(self, callback: Callable[[Any], object] | None, argument: object) -> None:
        try:
            if callback is not None:
                callback(argument)
        except Exception:
            log.exception("%s: a callback of watch raised an error", self.path)
