"""The thread that looks again: each period, and soon after a local file changed."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping

from ...registry.files.disk import FileMark

_log = logging.getLogger("adapterdock")

POLL = 1.0
"""Seconds between two checks of local files, at most."""

Marks = Mapping[str, FileMark]


class Follower:
    """Calls ``look`` in a daemon thread until :meth:`stop`, or until its owner is gone.

    ``marks`` returns what changes with the local files (nothing where there are none).
    """

    def __init__(
        self,
        look: Callable[[], object],
        marks: Callable[[], Marks],
        period: float,
        name: str,
    ) -> None:
        self._look = weakref.WeakMethod(look)  # type: ignore[arg-type]
        self._marks = weakref.WeakMethod(marks)  # type: ignore[arg-type]
        self._period = period
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop. A look that is being made is finished first."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        seen: Marks | None = None
        before: Marks = {}
        waited = 0.0
        step = min(self._period, POLL)
        while True:
            marks = self._now(before)
            if marks is None:
                return
            if seen is None:
                seen = marks
            settled = marks == before  # a file that is being written changes again
            before = marks
            if waited >= self._period or (marks != seen and settled):
                look = self._look()
                if look is None:
                    return
                look()
                del look
                seen, waited = marks, 0.0
            if self._stopping.wait(step):
                return
            waited += step

    def _now(self, before: Marks) -> Marks | None:
        """``before`` where they cannot be read: the look of the next period says why."""
        marks = self._marks()
        if marks is None:
            return None
        try:
            return marks()
        except Exception as error:
            _log.debug("Cannot see whether the files changed: %s", error)
            return before
