"""Uploads over Xet, as ``hf_xet`` speaks it (huggingface.co/docs/xet, the upload protocol).

The client asks the Hub for a token for writing, sends the chunks of new content as *xorbs*, and
then a *shard*, which says of which chunks each file is made up and what its SHA-256 is. The newer
routes that it tries first (grants, ``/v2/shards``) and deduplication have 404 here, as on older
servers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

_END = b"\xff" * 32
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30
_RECORD = 48


class XetWriting:
    """Keeps the chunks of xorbs, and puts the files of shards into ``objects`` by SHA-256."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self._xorbs: dict[str, list[bytes]] = {}

    def answer(self, path: str, body: bytes) -> tuple[int, Mapping[str, Any]]:
        """Status and body for a request under ``/xet/``."""
        if path.startswith("/xet/v1/xorbs/"):
            self._xorbs[path.rpartition("/")[2]] = list(_chunks(body))
            return 200, {"was_inserted": True}
        if path == "/xet/v1/shards":
            for sha256, segments in _files(body):
                self.objects[sha256] = b"".join(
                    b"".join(self._xorbs[xorb][start:stop]) for xorb, start, stop in segments
                )
            return 200, {"result": 1}
        return 404, {}


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Each file of a shard: its SHA-256, and the xorbs and ranges of chunks that it has."""
    at = _RECORD  # the header
    while shard[at : at + 32] != _END:
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += _RECORD
        segments = []
        for _ in range(count):
            start, stop = struct.unpack_from("<II", shard, at + 40)
            segments.append((_hex(shard[at : at + 32]), start, stop))
            at += _RECORD
        at += _RECORD * count if flags & _VERIFIED else 0
        assert flags & _WITH_SHA256
        yield _hex(shard[at : at + 32]), segments
        at += _RECORD


def _hex(digest: bytes) -> str:
    """Xet writes a digest as four little-endian numbers."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))


def _chunks(xorb: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(xorb) and xorb[at] == 0:
        packed, kind = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        data = xorb[at + 8 : at + 8 + packed]
        plain = data if kind == 0 else _lz4(data)
        chunk = plain if kind != 2 else _ungrouped(plain)
        assert len(chunk) == size
        yield chunk
        at += 8 + packed


def _ungrouped(data: bytes) -> bytes:
    """All first bytes of four, then all second ones, and so on, put in their places."""
    made, at = bytearray(len(data)), 0
    for byte in range(4):
        count = (len(data) + 3 - byte) // 4
        made[byte::4] = data[at : at + count]
        at += count
    return bytes(made)


def _lz4(frame: bytes) -> bytes:
    """The content of an LZ4 frame (github.com/lz4/lz4, ``lz4_Frame_format.md``)."""
    assert frame[:4] == b"\x04\x22\x4d\x18"
    flags, at, made = frame[4], 7 + (8 if frame[4] & 8 else 0), bytearray()
    while size := int.from_bytes(frame[at : at + 4], "little"):
        at += 4
        block = frame[at : at + (size & 0x7FFFFFFF)]
        at += len(block) + (4 if flags & 16 else 0)
        if size >> 31:
            made += block
        else:
            _lz4_block(block, made)
    return bytes(made)


def _lz4_block(block: bytes, made: bytearray) -> None:
    at = 0

    def length(start: int) -> int:
        nonlocal at
        total = start
        while start == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = length(token >> 4)
        made += block[at : at + literals]
        at += literals
        if at >= len(block):
            return
        offset = int.from_bytes(block[at : at + 2], "little")
        at += 2
        for _ in range(length(token & 15) + 4):
            made.append(made[-offset])
