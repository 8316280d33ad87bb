"""Waiting with an end: what another side sends is taken on a thread of its own, so that whoever
waits for it can leave whenever it takes too long, whatever the library below does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from .pace import Pace

T = TypeVar("T")

TICK = 0.2
"""Seconds after which a waiting caller is given the chance to leave."""
_AHEAD = 4


class AbandonedError(BaseException):
    """Raised in a producing thread for which nobody waits any more."""


class _Line(Generic[T]):
    """A short queue from one thread to its consumer, which may leave."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(_AHEAD)
        self._left: threading.Event = threading.Event()

    def start(self, produce: Callable[[Callable[[T], None]], None]) -> None:
        def work() -> None:
            failure: BaseException | None = None
            try:
                produce(self.put)
            except AbandonedError:
                return
            except BaseException as error:  # the consumer's to judge
                failure = error
            try:
                self._put((None, failure, True))
            except AbandonedError:
                return

        threading.Thread(target=work, name="adapterdock-transfer", daemon=True).start()

    def put(self, item: T) -> None:
        self._put((item, None, False))

    def _put(self, entry: tuple[T | None, BaseException | None, bool]) -> None:
        while not self._left.is_set():
            try:
                self._queue.put(entry, timeout=TICK)
            except queue.Full:
                continue
            return
        raise AbandonedError

    def get(self, seconds: float) -> tuple[T | None, BaseException | None, bool]:
        return self._queue.get(timeout=seconds)

    def leave(self) -> None:
        self._left.set()


def relayed(
    produce: Callable[[Callable[[T], None]], None], weigh: Callable[[T], int], pace: Pace
) -> Generator[T | None]:
    """What ``produce`` gives to the function that it is called with, as it comes; ``None`` while
    nothing comes, so that the caller can leave. ``weigh`` tells the bytes of an item.

    Raises what ``produce`` raises, and ``SlowError``. A
    producer that is left behind finds :class:`AbandonedError` at its next item.
    """
    line = _Line[T]()
    line.start(produce)
    pace.begin()
    try:
        while True:
            began = time.monotonic()
            try:
                item, failure, ended = line.get(min(TICK, pace.limits.stall))
            except queue.Empty:
                pace.add(time.monotonic() - began, 0)
                yield None
                continue
            if failure is not None:
                raise failure
            if ended:
                return
            assert item is not None
            pace.add(time.monotonic() - began, weigh(item))
            yield item
    finally:
        line.leave()


def within(seconds: float, call: Callable[[], T]) -> T:
    """``call()`` on a thread of its own. Raises ``TimeoutError`` after ``seconds``."""
    line = _Line[tuple[T]]()
    line.start(lambda put: put((call(),)))
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            try:
                item, failure, _ = line.get(TICK)
            except queue.Empty:
                continue
            if failure is not None:
                raise failure
            assert item is not None
            return item[0]
    finally:
        line.leave()
    raise TimeoutError(f"no answer within {seconds:g} s")
