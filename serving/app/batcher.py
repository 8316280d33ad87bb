"""Gathers rows of many requests into batches, and runs them in one thread.

Batches are static: a row that comes while a batch runs waits for its end (there is no continuous
batching). A row is taken into the next batch in the order in which rows came; rows that cannot run
together with the first one wait for theirs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from ...manifests.findings import loader as codes
from .failure import RequestError, busy
from .rows import Row

log = logging.getLogger("adapterdock")

Run = Callable[[Sequence[Row]], None]
"""Runs rows as one batch. It may raise; rows that are not finished then run apart."""


class Batcher:
    """One thread that runs batches.

    Args:
        run: Runs one batch.
        rows: The most rows of a batch.
        waiting: The most rows that wait.
        wait_seconds: How long the first row of a batch waits for more.
        fits: Whether these rows, which have one key, can be one batch.
        ran: Called with each batch before it runs.
    """

    def __init__(
        self,
        run: Run,
        *,
        rows: int = 8,
        waiting: int = 256,
        wait_seconds: float = 0.01,
        fits: Callable[[Sequence[Row]], bool] = lambda rows: True,
        ran: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self._run, self._fits, self._ran = run, fits, ran
        self._rows, self._most, self._wait = rows, waiting, wait_seconds
        self._queue: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._current: list[Row] = []
        self._thread = threading.Thread(target=self._work, name="adapterdock batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for a batch."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Rows of the batch that runs."""
        return len(self._current)

    def submit(self, rows: Sequence[Row]) -> None:
        """Let these rows wait for a batch: all of them, or none.

        Raises:
            RequestError: Too many rows wait, or the server is about to stop.
        """
        with self._changed:
            if self._closing:
                raise busy("The server is about to stop")
            if len(self._queue) + len(rows) > self._most:
                raise busy(f"{len(self._queue)} rows are waiting, of at most {self._most}")
            self._queue.extend(rows)
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Take no more rows and run those that wait; after ``seconds`` they fail, and those that
        run too. Whether all were run."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        done = not self._thread.is_alive()
        if not done:
            with self._changed:
                left = [*self._current, *self._queue]
                self._queue.clear()
            for row in left:
                row.fail(busy("The server stopped before the answer was complete"))
        return done

    def _work(self) -> None:
        while True:
            rows = self._next()
            if rows is None:
                return
            if not rows:  # all of them were cancelled
                continue
            try:
                self._ran(rows)
                run_apart(self._run, rows)
            except BaseException:
                log.exception("A batch ended with an error")
            finally:
                for row in rows:  # whatever happened, nobody waits for ever
                    if not row.cancelled:
                        row.fail(failed(None))
                self._current = []

    def _next(self) -> list[Row] | None:
        """The next batch, once it is full or the first row waited long enough; ``None`` to end."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            until = time.monotonic() + self._wait
            while len(self._queue) < self._rows and not self._closing:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            alive = deque(row for row in self._queue if not row.cancelled)
            self._current, self._queue = choose(alive, self._rows, self._fits)
            return self._current


def choose(
    queue: Collection[Row], most: int, fits: Callable[[Sequence[Row]], bool]
) -> tuple[list[Row], deque[Row]]:
    """The rows of the next batch, and those that go on waiting.

    The first row is in it; others with its key join as long as all of them fit.
    """
    chosen: list[Row] = []
    left: deque[Row] = deque()
    for row in queue:
        joins = not chosen or (
            len(chosen) < most and row.key == chosen[0].key and fits([*chosen, row])
        )
        (chosen if joins else left).append(row)
    return chosen, left


def run_apart(run: Run, rows: Sequence[Row]) -> None:
    """Run rows as one batch. If that fails, run them by adapter, then one by one, so that only a
    row that cannot run alone fails. A row whose answer was started is not run again."""
    try:
        run(rows)
        return
    except Exception as error:
        if len(rows) == 1:
            rows[0].fail(failed(error))
            return
        for row in rows:
            if row.started:
                row.fail(failed(error))
        log.warning("A batch of %d rows failed, so its rows run apart: %s", len(rows), error)
    rest = [row for row in rows if not row.finished and not row.cancelled]
    groups: dict[str, list[Row]] = {}
    for row in rest:
        row.again()
        groups.setdefault(row.adapter, []).append(row)
    for group in groups.values():
        apart = [group] if len(groups) > 1 else [[row] for row in group]
        for some in apart:
            run_apart(run, some)


def failed(error: Exception | None) -> RequestError:
    """What a row answers whose run failed: the kind of error, and nothing of its text, which could
    name other adapters."""
    if isinstance(error, RequestError):
        return error
    kind = None if error is None else type(error).__name__
    return RequestError(codes.GENERATE_FAILED.finding("The model failed to answer", found=kind))
