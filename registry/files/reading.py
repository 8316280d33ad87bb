"""An adapter's files as PEFT would have written them, whoever wrote them.

The checks, the plan and the loader know PEFT's format alone. What other programs write is brought
to it here, from the config and the headers, without reading a weight: a config with PEFT's fields,
a header with PEFT's names, and for each tensor the part of a file that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .facts import Header, Origin, StoredTensor, TensorInfo
from .header import DTYPE_BITS


@dataclass(frozen=True)
class Reading:
    """An adapter's config and header as PEFT would have written them.

    ``parts`` says what each tensor of ``header`` is made of; it is empty where they lie in their
    one file just as the header says. ``origin`` is ``None`` for PEFT's own.
    """

    config: Mapping[str, Any]
    header: Header
    parts: Mapping[str, StoredTensor] = field(default_factory=dict)
    origin: Origin | None = None


def header_of(
    parts: Mapping[str, StoredTensor], headers: Mapping[str, Header], metadata: Mapping[str, str]
) -> Header:
    """The header of a file that holds these parts. Wide elements come first, so that each tensor
    begins where one of its dtype can."""
    shapes = {
        name: _shape(part, headers[part.file].tensors[part.name]) for name, part in parts.items()
    }
    at = 0
    tensors: dict[str, TensorInfo] = {}
    for name, (source, shape) in sorted(shapes.items(), key=lambda item: -_width(item[1][0])):
        size = _width(source) * math.prod(shape) // 8
        tensors[name] = TensorInfo(source.dtype, shape, at, at + size)
        at += size
    return Header({name: tensors[name] for name in parts}, metadata, 0, at)


def metadata_of(headers: Iterable[Header]) -> dict[str, str]:
    """What several files say beside their tensors, as one."""
    found: dict[str, str] = {}
    for header in headers:
        found |= header.metadata
    return found


def _shape(part: StoredTensor, info: TensorInfo) -> tuple[TensorInfo, tuple[int, ...]]:
    shape = info.shape
    if part.rows is not None:
        shape = (part.rows[1] - part.rows[0], shape[-1])
    return info, shape[::-1] if part.turned else shape


def _width(info: TensorInfo) -> int:
    """Bits of one element."""
    return DTYPE_BITS[info.dtype]
