"""Real processes: forks of this one, which may be killed with ``kill -9`` at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path


def started(act: Callable[[], object], errors: Path | None = None) -> int:
    """Start a process that runs ``act`` and exits with 0, or with 1 where that raises; then its
    traceback is appended to ``errors``."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        random.seed()
        act()
        status = 0
    except BaseException:
        if errors is not None:
            with errors.open("a") as file:
                file.write(traceback.format_exc())
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(act: Callable[[], object], seconds: float) -> bool:
    """Run ``act`` in a process that is killed after ``seconds``; whether it was killed before its
    end."""
    child = started(act)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = ended(child)
    assert status in (0, -signal.SIGKILL), status
    return status != 0


class Killer:
    """Kills processes at random moments of what they do.

    How long that takes is learnt: longer where most are killed, shorter where most come to their
    end.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        """``act`` is run once, to its end."""
        start = time.monotonic()
        assert ended(started(act)) == 0
        self._seconds = time.monotonic() - start
        self.killed = 0

    def __call__(self, act: Callable[[], object]) -> None:
        """Run ``act`` in a process, which may be killed before its end."""
        killed = killed_after(act, random.uniform(0, self._seconds))
        self._seconds *= 1.03 if killed else 0.95
        self.killed += killed

    def turns(self, kills: int) -> Iterator[int]:
        """Numbers until so many were killed."""
        for turn in range(10 * kills):
            if self.killed >= kills:
                return
            yield turn
        raise AssertionError(f"only {self.killed} were killed")
