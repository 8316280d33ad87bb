"""Floating-point values of safetensors files, widened to float32 and rounded to other precisions.

Works on IEEE 754 bit patterns without numpy or torch, and rounds to nearest, ties to even, as
torch's ``Tensor.to`` does. All NaNs become the same quiet NaN, since their payload has no meaning
and differs between machines.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]

WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes per value of each safetensors dtype that is sampled: floats only."""

_NAN = 0x7FC00000
_INFINITY = 0x7F800000


def widen(dtype: str, data: bytes) -> tuple[int, ...]:
    """The float32 bit patterns of little-endian values of ``dtype`` (a safetensors dtype).

    All but F64 widen exactly; F64 is rounded to float32, as torch does when it loads one.
    Raises ``KeyError`` for a dtype that is not in :data:`WIDTHS`.
    """
    count = len(data) // WIDTHS[dtype]
    if dtype == "F32":
        bits: Iterable[int] = struct.unpack(f"<{count}I", data)
    elif dtype == "BF16":
        bits = (half << 16 for half in struct.unpack(f"<{count}H", data))
    elif dtype == "F16":
        bits = _bits_of(struct.unpack(f"<{count}e", data))
    elif dtype == "F64":
        bits = _bits_of([_to_float32(value) for value in struct.unpack(f"<{count}d", data)])
    elif dtype == "F8_E5M2":  # the upper byte of a float16
        padded = b"".join(b"\0" + data[i : i + 1] for i in range(count))
        bits = _bits_of(struct.unpack(f"<{count}e", padded))
    else:
        bits = _bits_of([_e4m3(byte) for byte in data])
    return tuple(_quiet(value) for value in bits)


def rounded(bits: Sequence[int], precision: Precision) -> tuple[int, ...]:
    """float32 bit patterns rounded to ``precision`` and widened again."""
    if precision == "float32":
        return tuple(bits)
    if precision == "bfloat16":
        return tuple(_to_bfloat16(value) for value in bits)
    return _to_float16(bits)


def packed(bits: Iterable[int]) -> bytes:
    """float32 bit patterns as little-endian bytes."""
    values = tuple(bits)
    return struct.pack(f"<{len(values)}I", *values)


def _quiet(bits: int) -> int:
    return _NAN if bits & 0x7FFFFFFF > _INFINITY else bits


def _to_bfloat16(bits: int) -> int:
    if bits & 0x7FFFFFFF > _INFINITY:
        return _NAN
    return (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000


def _to_float16(bits: Sequence[int]) -> tuple[int, ...]:
    values = struct.unpack(f"<{len(bits)}f", packed(bits))
    try:
        halves = struct.pack(f"<{len(values)}e", *values)
    except OverflowError:  # beyond 65519.99 is infinite, which struct refuses to write
        infinite = (math.copysign(math.inf, v) if abs(v) >= 65520.0 else v for v in values)
        halves = struct.pack(f"<{len(values)}e", *infinite)
    widened = _bits_of(struct.unpack(f"<{len(values)}e", halves))
    return tuple(_quiet(value) for value in widened)


def _to_float32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _e4m3(byte: int) -> float:
    """torch's float8_e4m3fn: bias 7, no infinities, NaN at all ones."""
    exponent, mantissa = byte >> 3 & 0xF, byte & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    size = mantissa / 512 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if byte & 0x80 else size


def _bits_of(values: Sequence[float]) -> tuple[int, ...]:
    return struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
