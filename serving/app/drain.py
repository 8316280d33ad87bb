"""Requests that are being answered, and the end of a server that waits for them."""

from __future__ import annotations

import asyncio

from .failure import busy


class Drain:
    """Counts requests in progress. Once it is closed no more begin. For one event loop."""

    def __init__(self) -> None:
        self.closing = False
        self.running = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> Drain:
        """Begin a request. Raises :class:`RequestError` once it is closed."""
        if self.closing:
            raise busy("The server is about to stop")
        self.running += 1
        self._empty.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        if not self.running:
            self._empty.set()

    def close(self) -> None:
        """Let no more requests begin."""
        self.closing = True

    async def finished(self, seconds: float) -> bool:
        """Wait until all have their answer, at most so long. Whether they have."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True
