"""Requests that are being answered, and the end of a server that waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

from .failure import busy


class Drain:
    """The requests in progress. Once it is closed no more begin. For one event loop."""

    def __init__(self) -> None:
        self.closing = False
        self.is_over = False
        """Whether those that are left are cut off."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> Drain:
        """Begin a request, in its task. Raises :class:`RequestError` once it is closed."""
        if self.closing:
            raise busy("The server is about to stop")
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._empty.clear()
        return self

    def __exit__(self, *_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        if not self._tasks:
            self._empty.set()

    @property
    def running(self) -> int:
        """How many requests are in progress."""
        return len(self._tasks)

    def close(self) -> None:
        """Let no more requests begin."""
        self.closing = True

    def cut(self) -> None:
        """Cancel the requests that are left: their caller sends no more of a body, or reads no
        more of an answer."""
        self.is_over = True
        for task in self._tasks:
            task.cancel()

    async def finished(self, seconds: float) -> bool:
        """Wait until all have their answer, at most so long. Whether they have."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True
