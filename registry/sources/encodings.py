"""Content codings of HTTP (RFC 9110, section 8.4), decoded piece by piece, so that a body that
expands takes only the memory of one piece, and its reader can stop at each."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

PIECE = 1 << 16
"""Bytes that are decoded at once."""
_EITHER = 32 + zlib.MAX_WBITS  # zlib's own recognition of gzip and zlib


class BadEncodingError(Exception):
    """The body cannot be decoded; the text says why."""


def encoding_of(headers: Mapping[str, str]) -> str:
    """The coding of an answer, or ``identity``."""
    return headers.get("Content-Encoding", "").strip().lower() or "identity"


def decoded(headers: Mapping[str, str], chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The content of a body that comes in ``chunks``.

    Raises :class:`BadEncodingError` for a coding other than gzip and deflate, for an invalid body,
    and for more than ``most`` bytes of a coded body.
    """
    encoding = encoding_of(headers)
    if encoding == "identity":
        yield from chunks
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadEncodingError(f"a body in the encoding {encoding[:40]!r}")
    coded, inflate = 0, zlib.decompressobj(_EITHER)
    try:
        for chunk in chunks:
            coded += len(chunk)
            if coded > most:
                raise BadEncodingError(f"more than {most} bytes in the encoding {encoding!r}")
            data = chunk
            while data and not inflate.eof:
                piece = inflate.decompress(data, PIECE)
                data = inflate.unconsumed_tail
                if piece:
                    yield piece
            while not inflate.eof and (piece := inflate.decompress(b"", PIECE)):
                yield piece
    except zlib.error as error:
        raise BadEncodingError(f"a body that is not in the encoding {encoding!r}") from error
