"""Following a manifest: what is written into it is planned and applied, in the background."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ...manifests.findings import changing as codes
from ...manifests.findings import loader as loader_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, AttachError, UsageError
from ...manifests.lockfile import lock_path
from ...registry.locks.project import open_manifest
from ...registry.plan import Plan
from ..model.deployment import InMemory
from ..model.stand_in import StandIn, host_of
from .change import apply_plan, overrides_of, plan_change

log = logging.getLogger("adapterdock")

INTERVAL = 2.0
"""Seconds between two looks at the files."""
SETTLE = 0.2
"""Seconds for which a file must stay the same to count as written to its end."""
_LONGEST = 32
"""Intervals after which what failed is tried again, at most."""

Marks = Mapping[Path, tuple[int, ...] | None]


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
    """Follow the manifest at ``path``: now, and whenever it, its lock or a file that it extends
    changes, the model is brought to what it says. Returns a handle; a ``with`` block of it stops
    at its end.

    The files are looked at every ``interval`` seconds. What cannot be planned or applied leaves
    the model as it is, is logged, told to ``on_error`` and kept as ``last_error``; it is tried
    again when a file changes, and at ever longer intervals. ``on_change`` is told of every plan
    that was applied. The other options are those of :meth:`AdaptedModel.plan`. Raises
    :class:`UsageError` for an interval that is none.
    """
    if not interval > 0 or interval == float("inf"):
        raise UsageError(
            usage_codes.BAD_INTERVAL.finding(
                "watch looks at its files every so many seconds",
                found=interval,
                expected="a number above 0",
            )
        )
    options = {
        "policy": policy,
        "accept": tuple(accept),
        "frozen": frozen,
        "offline": offline,
        "sources": sources,
    }
    return Watch(model, Path(path), interval, options, on_change, on_error)


class Watch:
    """A model that follows a manifest, until :meth:`stop` (or the model is gone).

    ``last_error`` is why the model does not follow at the moment (``None`` where it does), and
    ``last_plan`` what was applied last.
    """

    def __init__(
        self,
        model: StandIn,
        path: Path,
        interval: float,
        options: Mapping[str, Any],
        on_change: Callable[[Plan], object] | None,
        on_error: Callable[[AdapterdockError], object] | None,
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
        self._thread = threading.Thread(
            target=self._run, name=f"adapterdock watch {path}", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Follow no longer. A change that is being applied is finished first."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
                    seen = None  # written to meanwhile: another look, at once
            if self._stopping.wait(self.interval):
                return
            waited += 1

    def _settled(self) -> Marks | None:
        """The files' marks once they stay the same; ``None`` where it is time to stop.

        Half a manifest may well be a manifest, of fewer adapters.
        """
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

    _last_settled: Marks | None = None

    def _marks(self) -> Marks:
        return {path: _mark(path) for path in self._watched()}

    def _watched(self) -> tuple[Path, ...]:
        outside = self._options["policy"]
        more = () if outside is None else (Path(outside),)
        return tuple(dict.fromkeys((self.path, lock_path(self.path), *self._files, *more)))

    def _follow(self, marks: Marks) -> bool:
        """Plan and apply; whether there is still something to follow."""
        model = self._model()
        if model is None:
            return False
        host = host_of(model)
        try:
            file = open_manifest(self.path, **overrides_of(host.deployment))
            self._files = file.files
            plan = plan_change(host, file, **self._options)
            if any(_mark(path) != mark for path, mark in marks.items()):
                return True  # it was read while it was written to: the next look sees it
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
            said = f"{type(error).__name__}: {error}"
            self._failed(AttachError(codes.WATCH_BROKE_OFF.finding(said)), error)
            return True
        self.last_error = None
        if plan:
            self._tell(self._on_change, plan)
        return True

    def _failed(self, error: AdapterdockError, cause: Exception | None = None) -> None:
        if str(error) == str(self.last_error):
            return  # it was tried again, and there is no news
        error.__cause__ = cause
        self.last_error = error
        log.error("%s is not followed, the adapters stay as they are\n%s", self.path, error)
        self._tell(self._on_error, error)

    def _tell(self, callback: Callable[[Any], object] | None, what: object) -> None:
        try:
            if callback is not None:
                callback(what)
        except Exception:
            log.exception("%s: a callback of watch raised", self.path)


def _mark(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; ``None`` for one that is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
