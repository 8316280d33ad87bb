"""Byte ranges over HTTP (RFC 9110, section 14): is the answer what was asked?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_SKIPPED = 1 << 20
"""Bytes in front of the asked range that are read and thrown away where a server ignores Range."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


class BadRangeError(Exception):
    """The answer is not the range that was asked; the text says what it is instead."""


def range_header(start: int, stop: int) -> str:
    """The Range header for the bytes ``start <= i < stop``."""
    return f"bytes={start}-{stop - 1}"


def only_range(
    status: int,
    headers: Mapping[str, str],
    chunks: Iterable[bytes],
    *,
    start: int,
    stop: int,
    size: int,
    received: Callable[[int], None],
) -> Iterator[bytes]:
    """The asked bytes out of an answer to a ranged GET of a file of ``size`` bytes.

    Stops reading as soon as it has them, whatever the server would go on to send. ``received``
    is told of every byte that arrives, also of those thrown away. Raises :class:`BadRangeError` for
    a 206 with another range or file size, and for a 200 in which the asked bytes lie behind more
    than :data:`MAX_SKIPPED` others.
    """
    skip = start
    if status == 206:
        skip = 0
        _check_content_range(headers, start, stop, size)
    elif status != 200:
        raise BadRangeError(f"HTTP {status}")
    elif start > MAX_SKIPPED:
        raise BadRangeError(f"the server ignores Range, and the asked bytes start at {start}")
    elif _announced(headers) not in (None, size):
        raise BadRangeError(f"a file of {_announced(headers)} bytes, not of {size}")
    wanted = stop - start
    for chunk in chunks:
        received(len(chunk))
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        useful = chunk[skip : skip + wanted]
        skip = 0
        wanted -= len(useful)
        yield useful
        if not wanted:
            return


def _check_content_range(headers: Mapping[str, str], start: int, stop: int, size: int) -> None:
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise BadRangeError(f"a range in the encoding {encoding!r}")
    text = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(text)
    if match is None:
        raise BadRangeError(f"HTTP 206 with Content-Range {text!r}")
    first, last, total = int(match.group(1)), int(match.group(2)), match.group(3)
    if first != start or last >= stop or (total != "*" and int(total) != size):
        raise BadRangeError(f"Content-Range {text!r} for bytes {start}-{stop - 1} of {size}")


def _announced(headers: Mapping[str, str]) -> int | None:
    """The file's size by a 200's headers, where they tell it."""
    length = headers.get("Content-Length", "")
    encoded = headers.get("Content-Encoding", "identity") != "identity"
    return int(length) if length.isdigit() and not encoded else None
