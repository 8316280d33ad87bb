"""Stored tensors as float32 bytes, and times a number; with numpy where there is one.

Both ways give the same bits: each product is rounded once.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

DTYPES = frozenset({"F32", "F16", "BF16", "F64"})
"""What can be read as float32. (Float64 is rounded; the loader does so too.)"""


def float32_bytes(raw: bytes, dtype: str, factor: float = 1.0) -> bytes:
    """Little-endian values of a dtype in :data:`DTYPES`, times ``factor`` (rounded to float32
    first), as little-endian float32."""
    return _way()(raw, dtype, factor)


@cache
def _way() -> Callable[[bytes, str, float], bytes]:
    try:
        import numpy
    except ImportError:
        return plain_python
    return lambda raw, dtype, factor: with_numpy(numpy, raw, dtype, factor)


def with_numpy(numpy: Any, raw: bytes, dtype: str, factor: float) -> bytes:
    """See :func:`float32_bytes`."""
    if dtype == "BF16":
        halves = numpy.frombuffer(raw, dtype="<u2").astype("<u4")
        values = (halves << 16).view("<f4")
    else:
        stored = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]
        values = numpy.frombuffer(raw, dtype=stored).astype("<f4")
    if factor != 1.0:
        values = values * numpy.float32(factor)
    return bytes(values.astype("<f4").tobytes())


def plain_python(raw: bytes, dtype: str, factor: float) -> bytes:
    """See :func:`float32_bytes`."""
    if dtype == "BF16":
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        raw, dtype = bytes(wide), "F32"
    if dtype == "F32":
        values = array("f")
        values.frombytes(raw)
        if sys.byteorder == "big":
            values.byteswap()
    else:
        code, width = {"F16": ("e", 2), "F64": ("d", 8)}[dtype]
        values = array("f", struct.unpack(f"<{len(raw) // width}{code}", raw))
    if factor != 1.0:
        rounded = array("f", [factor])[0]
        values = array("f", [value * rounded for value in values])
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
