"""From the thread that runs the model to the event loop of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from .rows import Piece, Row


class Channel:
    """One queue for each row of a request."""

    def __init__(self, rows: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues = [asyncio.Queue[Piece]() for _ in range(rows)]

    def hear(self, row: int, piece: Piece) -> None:
        """Pass a piece on. Called in the thread of the model; a loop that is gone hears nothing."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queues[row].put_nowait, piece)

    async def next(self, row: int) -> Piece:
        """The next piece of a row. Raises its :class:`RequestError`."""
        piece = await self._queues[row].get()
        if piece.error is not None:
            raise piece.error
        return piece

    async def whole(self, row: int) -> Piece:
        """The complete answer of a row, as one piece."""
        text = ""
        while True:
            piece = await self.next(row)
            text += piece.text
            if piece.is_last:
                return Piece(text, piece.finish, piece.vector)


def cancel(rows: Sequence[Row]) -> None:
    """Nobody waits for these rows any more."""
    for row in rows:
        row.cancelled = True
