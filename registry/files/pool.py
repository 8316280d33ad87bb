"""A few threads that work through a list, and do not delay an exit.

``concurrent.futures`` waits for every running task at its end, and again when Python exits; a
hanging transfer would delay a Ctrl-C by minutes. These threads are daemons: they are asked to stop,
get a moment to do so, and are then abandoned.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")

PATIENCE = 0.7
"""Seconds that running tasks have to notice a stop."""


class Stopped(BaseException):
    """Ends a task from inside. It is not an ``Exception``, so that nothing retries it."""


class Stop:
    """A request to all threads to stop as soon as possible."""

    def __init__(self) -> None:
        self._event: threading.Event = threading.Event()

    def ask(self) -> None:
        self._event.set()

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise :class:`Stopped` after :meth:`ask`."""
        if self._event.is_set():
            raise Stopped


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of a task: a value, or what it raised. Both are ``None`` for a task that did not
    start, or did not end in time, because of a stop."""

    value: T | None = None
    error: BaseException | None = None


def run_all(
    tasks: Sequence[Callable[[], T]], workers: int, stop: Stop, *, until_error: bool
) -> list[Outcome[T]]:
    """Run ``tasks`` on at most ``workers`` threads; outcomes come in the order of the tasks.

    With ``until_error`` the first task that raises asks to stop: no other is started, and running
    ones end at their next ``stop.check()``. A KeyboardInterrupt (or anything else raised in the
    calling thread) does the same and is raised again.
    """
    outcomes: list[Outcome[T]] = [Outcome()] * len(tasks)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(tasks)):
        waiting.put(index)
    ended: queue.SimpleQueue[tuple[int, Outcome[T]] | None] = queue.SimpleQueue()

    def work() -> None:
        while not stop.asked:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                outcome = Outcome(value=tasks[index]())
            except Stopped:
                outcome = Outcome[T]()
            except BaseException as error:
                outcome = Outcome[T](error=error)
                if until_error:
                    stop.ask()
            ended.put((index, outcome))
        ended.put(None)

    threads = [
        threading.Thread(target=work, name=f"adapterdock-{number}", daemon=True)
        for number in range(max(1, min(workers, len(tasks))))
    ]
    running = len(threads)
    deadline: float | None = None
    try:
        for thread in threads:
            thread.start()
        while running:
            if stop.asked and deadline is None:
                deadline = time.monotonic() + PATIENCE
            if deadline is not None and time.monotonic() > deadline:
                break
            try:
                # Short waits: some systems deliver Ctrl-C only between them.
                got = ended.get(timeout=0.1)
            except queue.Empty:
                continue
            if got is None:
                running -= 1
            else:
                outcomes[got[0]] = got[1]
    except BaseException:
        stop.ask()
        limit = time.monotonic() + PATIENCE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, limit - time.monotonic()))
        raise
    return outcomes


def each(act: Callable[[S], T], items: Sequence[S], workers: int) -> list[T]:
    """``act`` of every item, in order, on at most ``workers`` threads; on this one, if there is
    nothing to gain from others. Raises the first error; no further item is then started."""
    if workers <= 1:
        return [act(item) for item in items]
    tasks = [partial(act, item) for item in items]
    outcomes = run_all(tasks, workers, Stop(), until_error=True)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [cast(T, outcome.value) for outcome in outcomes]
