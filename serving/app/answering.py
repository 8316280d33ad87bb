"""From admitted rows to an answer: complete, or as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from .admission import Admitted
from .batcher import Batcher
from .channel import Channel, cancel
from .failure import RequestError, busy
from .metrics import Metrics
from .replies import END, Reply, event, usage_of
from .rows import GenerationRow, Piece, Row

T = TypeVar("T")


class Answering:
    """Lets rows wait for a batch, and collects what they say."""

    def __init__(self, batcher: Batcher, metrics: Metrics, seconds: float) -> None:
        self._batcher, self._metrics, self._seconds = batcher, metrics, seconds

    async def complete(
        self, request: Request, admitted: Admitted, channel: Channel
    ) -> list[Piece] | None:
        """The answers of all rows; ``None`` where the caller has gone away.

        Raises:
            RequestError: The server is busy, a row failed, or it took too long.
        """
        rows = admitted.rows
        self._batcher.submit(rows)
        waiting = [asyncio.ensure_future(channel.whole(at)) for at in range(len(rows))]
        try:
            found = await _unless_gone(request, self._in_time(_all(waiting)))
            return None if found is None else list(found)
        finally:
            _forget(waiting)
            self._end(admitted)

    async def stream(
        self, request: Request, admitted: Admitted, channel: Channel, reply: Reply, *, usage: bool
    ) -> Response:
        """An answer whose rows come as events, each when it has more text.

        Raises:
            RequestError: The same as :meth:`complete`, before anything was sent.
        """
        rows = admitted.rows
        self._batcher.submit(rows)
        merged = _Merged(channel, len(rows))
        try:
            first = await _unless_gone(request, self._in_time(merged.next()))
        except BaseException:
            merged.close()
            self._end(admitted)
            raise
        if first is None:
            merged.close()
            self._end(admitted)
            return gone()

        async def events() -> AsyncIterator[str]:
            started: set[int] = set()
            at_hand: tuple[int, Piece] | None = first
            try:
                while at_hand is not None:
                    row, piece = at_hand
                    if reply.kind == "chat" and row not in started:
                        # openai's clients expect the role at the beginning
                        yield event(reply.chunk(row, Piece(), first=True))
                    started.add(row)
                    yield event(reply.chunk(row, piece, first=False))
                    at_hand = await self._in_time(merged.next()) if merged.open else None
                if usage:
                    yield event(reply.usage_chunk(usage_for(admitted)))
            except RequestError as error:
                yield event(error.as_dict())
            finally:
                merged.close()
                self._end(admitted)
            yield END

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(answer, self._seconds)
        except asyncio.TimeoutError:
            raise busy(f"There was no answer within {self._seconds:g} seconds") from None

    def _end(self, admitted: Admitted) -> None:
        """Whatever happened, no row runs on for nobody; and it is counted."""
        for row in admitted.rows:
            end = "finished" if row.finished else "cancelled"
            self._metrics.rows.labels(row.adapter, row.kind, end).inc()
        cancel(admitted.rows)
        adapter = admitted.rows[0].adapter
        self._metrics.tokens.labels(adapter, "prompt").inc(admitted.prompt_tokens)
        self._metrics.tokens.labels(adapter, "answer").inc(answered(admitted.rows))


class _Merged:
    """The pieces of all rows, in the order in which they come."""

    def __init__(self, channel: Channel, rows: int) -> None:
        self._channel = channel
        self._next = {asyncio.ensure_future(channel.next(row)): row for row in range(rows)}
        self._ready: list[tuple[int, Piece]] = []

    @property
    def open(self) -> bool:
        """Whether more comes."""
        return bool(self._next or self._ready)

    async def next(self) -> tuple[int, Piece]:
        """The next piece, and its row. Raises the row's :class:`RequestError`."""
        if not self._ready:
            done, _ = await asyncio.wait(self._next, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=self._next.__getitem__):
                row = self._next.pop(task)
                piece = task.result()
                self._ready.append((row, piece))
                if not piece.is_last:
                    self._next[asyncio.ensure_future(self._channel.next(row))] = row
        return self._ready.pop(0)

    def close(self) -> None:
        """Wait for nothing more."""
        _forget(self._next)


async def _all(tasks: Sequence[asyncio.Future[T]]) -> list[T]:
    """What all of them give. Raises the first error. (``gather`` logs one where it is cancelled
    together with what it waits for.)"""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
    return [task.result() for task in tasks]


def _forget(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Wait for these no more; what they raised was said by another one."""
    for task in tasks:
        if not task.done():
            task.cancel()
        elif not task.cancelled():
            task.exception()


async def _unless_gone(request: Request, answer: Awaitable[T]) -> T | None:
    """What ``answer`` gives, or ``None`` once the caller has closed the connection."""
    work = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, leaving):
            if not task.done():
                task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def gone() -> Response:
    """For a caller that has closed the connection; nobody reads it."""
    return JSONResponse({}, 499)


def answered(rows: Sequence[Row]) -> int:
    """How many tokens were generated."""
    return sum(row.tokens for row in rows if isinstance(row, GenerationRow))


def usage_for(admitted: Admitted) -> dict[str, int]:
    """The usage of a request that generates."""
    return usage_of(admitted.prompt_tokens, answered(admitted.rows))
