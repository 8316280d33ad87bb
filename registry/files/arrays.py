"""Tensors of safetensors files as numpy arrays, without torch. numpy is imported when one is
read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .facts import Header, StoredTensor, TensorInfo

READABLE = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes that can be read."""
CHUNK = 1 << 22
"""Values that are looked at together."""
Array = Any
"""A ``numpy.ndarray``."""


def read_array(place: Path, header: Header, name: str) -> Array:
    """A tensor of a file, float32 (float64 as it is), in its shape. Raises ``OSError``, and
    ``ImportError`` without numpy."""
    info = header.tensors[name]
    parts = [*_chunks(place, header, info)]
    import numpy

    whole = numpy.concatenate(parts) if parts else numpy.zeros(0, numpy.float32)
    return whole.reshape(info.shape)


def read_part(
    places: Mapping[str, Path], headers: Mapping[str, Header], part: StoredTensor
) -> Array:
    """The part of a file that is a tensor."""
    array = read_array(places[part.file], headers[part.file], part.name)
    if part.rows is not None:
        first, end = part.rows
        array = array.reshape(-1, array.shape[-1])[first:end]
    return array.T if part.turned else array


def square_sum(place: Path, header: Header, name: str) -> float:
    """The sum of a tensor's squared values, without holding it in memory."""
    import numpy

    total = 0.0
    for chunk in _chunks(place, header, header.tensors[name]):
        values = chunk.astype(numpy.float64)
        total += float(values @ values)
    return total


def _chunks(place: Path, header: Header, info: TensorInfo) -> Iterator[Array]:
    import numpy

    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[info.dtype]
    left = math.prod(info.shape)
    with place.open("rb") as stream:
        stream.seek(header.data_start + info.start)
        while left > 0:
            count = min(left, CHUNK)
            raw = stream.read(count * numpy.dtype(kind).itemsize)
            values = numpy.frombuffer(raw, kind)
            if len(values) != count:
                raise OSError("the file is shorter than its header says")
            left -= count
            if info.dtype == "BF16":  # the upper half of a float32
                values = (values.astype(numpy.uint32) << 16).view(numpy.float32)
            yield values if info.dtype == "F64" else values.astype(numpy.float32)
