"""A large file received in parts, side by side: one connection alone seldom fills a network."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from ..files.digests import Hasher

PART = 16 << 20
"""Bytes of a part."""
AT_ONCE = min(8, 2 * (os.cpu_count() or 1))
"""Parts that a process receives at once, of all files together. On two processors eight threads
are slower than four."""
_TICK = 0.2
_PIECE = 1 << 20
_room = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class _Arrived:
    """Bytes of a part, or what went wrong."""

    part: int
    count: int = 0
    error: BaseException | None = None


def receive_in_parts(
    transfer: Callable[[int, int], Generator[bytes]],
    size: int,
    file: int,
    on_bytes: Callable[[int], None] | None,
    hasher: Hasher | None,
) -> None:
    """Write ``size`` bytes into an empty file.

    Args:
        transfer: The bytes from one position to another, in order. Called from several threads.
        size: Bytes of the file.
        file: An open file descriptor.
        on_bytes: Gets the number of bytes that came; also 0 now and then. What it raises ends the
            transfer.
        hasher: Gets the file's bytes, in order.

    Raises what ``transfer`` raises, and ``OSError`` where the disk refuses.
    """
    starts = list(range(0, size, PART))
    todo = iter(enumerate(starts))
    taking, leave = threading.Lock(), threading.Event()
    line: queue.Queue[_Arrived] = queue.Queue()

    def work() -> None:
        while not leave.is_set():
            with _room:
                with taking:
                    number, start = next(todo, (None, 0))
                if number is None:
                    return
                try:
                    _receive(transfer, number, start, min(start + PART, size), file, leave, line)
                except BaseException as error:  # for the caller to raise
                    line.put(_Arrived(number, error=error))
                    return

    threads = [
        threading.Thread(target=work, name="adapterdock-part", daemon=True)
        for _ in range(min(AT_ONCE, len(starts)))
    ]
    for thread in threads:
        thread.start()
    try:
        _follow(line, size, file, on_bytes, hasher)
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def _follow(
    line: queue.Queue[_Arrived],
    size: int,
    file: int,
    on_bytes: Callable[[int], None] | None,
    hasher: Hasher | None,
) -> None:
    """Report what arrives, and hash the bytes in order, while others still come."""
    got = [0] * -(-size // PART)
    left, first, hashed = size, 0, 0
    while left or (hasher is not None and hashed < size):
        step = 0
        if hasher is not None:
            while got[first] == PART and first + 1 < len(got):
                first += 1
            in_order = first * PART + got[first]
            step = min(in_order - hashed, _PIECE)
            step = 0 if left and step < _PIECE else step
            _hash(file, hashed, hashed + step, hasher)
            hashed += step
        for arrived in _arrived(line, 0 if step or not left else _TICK):
            if arrived.error is not None:
                raise arrived.error
            got[arrived.part] += arrived.count
            left -= arrived.count
            if on_bytes is not None:
                on_bytes(arrived.count)
        if on_bytes is not None:
            on_bytes(0)


def _arrived(line: queue.Queue[_Arrived], wait: float) -> Generator[_Arrived]:
    """What has arrived; the first may be waited for."""
    try:
        yield line.get(wait > 0, wait)
        while True:
            yield line.get_nowait()
    except queue.Empty:
        return


def _receive(
    transfer: Callable[[int, int], Generator[bytes]],
    part: int,
    start: int,
    stop: int,
    file: int,
    leave: threading.Event,
    line: queue.Queue[_Arrived],
) -> None:
    with closing(transfer(start, stop)) as chunks:
        for chunk in chunks:
            if leave.is_set():
                return
            left = memoryview(chunk)
            while left:
                written = os.pwrite(file, left, start)
                start, left = start + written, left[written:]
            line.put(_Arrived(part, len(chunk)))


def _hash(file: int, start: int, stop: int, hasher: Hasher) -> None:
    while start < stop:
        chunk = os.pread(file, min(_PIECE, stop - start), start)
        if not chunk:
            raise OSError("the file became shorter while it was written")
        hasher.update(chunk)
        start += len(chunk)
