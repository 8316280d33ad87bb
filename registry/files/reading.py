"""An adapter's files in PEFT's format, for every program that wrote them.

The checks, the plan and the loader only know PEFT's format. What other programs write is converted
to it here, from the config and the headers, without reading weights: a config with PEFT's fields, a
header with PEFT's names, and for each tensor the part of a file that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .conversion import Shape
from .facts import Header, Origin, StoredTensor
from .header import laid_out


@dataclass(frozen=True)
class Reading:
    """An adapter's config and header as PEFT would have written them.

    ``parts`` says what each tensor of ``header`` is made of; it is empty where one file holds them
    as the header says. ``origin`` is ``None`` for PEFT's own.
    """

    config: Mapping[str, Any]
    header: Header
    parts: Mapping[str, StoredTensor] = field(default_factory=dict)
    origin: Origin | None = None


def header_of(
    parts: Mapping[str, StoredTensor], headers: Mapping[str, Header], metadata: Mapping[str, str]
) -> Header:
    """The header of a file that would hold these parts."""
    stored = {name: headers[part.file].tensors[part.name] for name, part in parts.items()}
    infos = laid_out((n, info.dtype, _shape(parts[n], info.shape)) for n, info in stored.items())
    size = sum(info.nbytes for info in infos.values())
    return Header({name: infos[name] for name in parts}, metadata, 0, size)


def metadata_of(headers: Iterable[Header]) -> dict[str, str]:
    """The metadata of several files as one."""
    found: dict[str, str] = {}
    for header in headers:
        found |= header.metadata
    return found


def _shape(part: StoredTensor, shape: Shape) -> Shape:
    if part.rows is not None:
        shape = (part.rows[1] - part.rows[0], shape[-1])
    return shape[::-1] if part.turned else shape
