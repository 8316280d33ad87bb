"""Byte ranges over HTTP (RFC 9110, section 14): whether the answer is the requested range."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from .encodings import BadEncodingError, decoded, encoding_of

MAX_SKIPPED = 1 << 20
"""Bytes before the requested range that are read and dropped where a server ignores Range."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


class BadRangeError(Exception):
    """The answer is not the requested range; the text says what it is instead."""


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
    """The requested bytes from an answer to a ranged GET of a file of ``size`` bytes.

    ``chunks`` are the body as it was sent; gzip and deflate are decoded here. Reading stops as
    soon as the bytes are there. ``received`` counts all bytes that arrive, dropped ones too. Raises
    :class:`BadRangeError` for a 206 with another range or file size, for a 200 with more than
    :data:`MAX_SKIPPED` bytes before the range, and for a body that continues after the file's last
    byte.
    """
    skip = start
    if status == 206:
        skip = 0
        _check_content_range(headers, start, stop, size)
    elif status != 200:
        raise BadRangeError(f"HTTP {status}")
    elif start > MAX_SKIPPED:
        raise BadRangeError(f"the server ignores Range, and the requested bytes start at {start}")
    elif _announced(headers) not in (None, size):
        raise BadRangeError(f"a file of {_announced(headers)} bytes, not of {size}")
    wanted = stop - start
    try:
        for chunk in (content := decoded(headers, _counted(chunks, received), _most(stop))):
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            useful = chunk[skip : skip + wanted]
            more = len(chunk) - skip - len(useful)
            skip = 0
            wanted -= len(useful)
            yield useful
            if wanted:
                continue
            if stop == size and (more or (_announced(headers) is None and _goes_on(content))):
                raise BadRangeError(f"a body that goes on after {size} bytes")
            return
    except BadEncodingError as error:
        raise BadRangeError(str(error)) from error


def _goes_on(content: Iterator[bytes]) -> bool:
    """Whether more comes; a connection may break after the last byte."""
    try:
        return any(content)
    except BadEncodingError:
        raise
    except Exception:
        return False


def _counted(chunks: Iterable[bytes], received: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        received(len(chunk))
        yield chunk


def _most(stop: int) -> int:
    """Bytes that a coded body may have: coding makes no body much longer."""
    return stop + (stop >> 3) + (1 << 16)


def _check_content_range(headers: Mapping[str, str], start: int, stop: int, size: int) -> None:
    encoding = encoding_of(headers)
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
    """The body's length in its headers, or ``None``."""
    length = headers.get("Content-Length", "")
    coded = encoding_of(headers) != "identity"
    return int(length) if length.isdigit() and not coded else None
