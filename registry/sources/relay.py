"""Waiting with an end: what a server sends is received on a thread of its own, so that the waiting
caller can leave when it takes too long, whatever the library below does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from .pace import Limits, Pace

T = TypeVar("T")

TICK = 0.2
"""Seconds after which a waiting caller gets the chance to leave."""
_AHEAD = 4


class AbandonedError(BaseException):
    """Raised in a producing thread whose consumer has left."""


def relayed(
    produce: Callable[[Callable[[T], None]], None], weigh: Callable[[T], int], pace: Pace
) -> Generator[T | None]:
    """Each item that ``produce`` passes to its argument, as it comes; ``None`` while none comes,
    so that the caller can leave. ``weigh`` returns the bytes of an item.

    Raises what ``produce`` raises, and ``SlowError``. A producer whose consumer has left gets
    :class:`AbandonedError` at its next item.
    """
    line: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(_AHEAD)
    left = threading.Event()

    def put(item: T | None, failure: BaseException | None = None) -> None:
        while not left.is_set():
            try:
                line.put((item, failure), timeout=TICK)
            except queue.Full:
                continue
            return
        raise AbandonedError

    def work() -> None:
        failure: BaseException | None = None
        try:
            try:
                produce(put)
            except AbandonedError:
                raise
            except BaseException as error:  # for the consumer to handle
                failure = error
            put(None, failure)
        except AbandonedError:
            return

    threading.Thread(target=work, name="adapterdock-transfer", daemon=True).start()
    pace.start_window()
    try:
        while True:
            began = time.monotonic()
            try:
                item, failure = line.get(timeout=min(TICK, pace.limits.stall))
            except queue.Empty:
                pace.add(time.monotonic() - began, 0)
                yield None
                continue
            if failure is not None:
                raise failure
            if item is None:
                return
            pace.add(time.monotonic() - began, weigh(item))
            yield item
    finally:
        left.set()


def within(seconds: float, call: Callable[[], T]) -> T:
    """``call()`` on a thread of its own. Raises ``SlowError`` after ``seconds``."""

    def produce(put: Callable[[tuple[T]], None]) -> None:
        put((call(),))

    pace = Pace(Limits(rate=0, file=seconds), 0)
    with closing(relayed(produce, len, pace)) as results:
        for result in results:
            if result is not None:
                return result[0]
    raise AssertionError("the call returns or raises")
