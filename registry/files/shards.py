"""The layout of a checkpoint's safetensors files, before their tensors exist.

Format: see ``registry.files.header``. Names and the index are transformers'
(``model-00001-of-00003.safetensors``, ``model.safetensors.index.json``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .header import DTYPE_BITS, laid_out
from .names import BASE_WEIGHTS


class Tensor(NamedTuple):
    """A tensor that will be written; the dtype is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class ShardLayout:
    """One file of ``size`` bytes. ``head`` is its length field and header, ``starts`` the byte of
    the file at which each tensor starts."""

    file: str
    head: bytes
    starts: Mapping[str, int]
    size: int


def packed(tensors: Iterable[Tensor], limit: int) -> dict[str, list[Tensor]]:
    """Files of at most ``limit`` bytes of tensors, in order; a larger tensor gets its own file."""
    parts: list[list[Tensor]] = [[]]
    room = limit
    for tensor in tensors:
        if parts[-1] and tensor.nbytes > room:
            parts.append([])
            room = limit
        parts[-1].append(tensor)
        room -= tensor.nbytes
    if len(parts) == 1:
        return {BASE_WEIGHTS: parts[0]}
    return {
        f"model-{number:05d}-of-{len(parts):05d}.safetensors": part
        for number, part in enumerate(parts, 1)
    }


def lay_out(file: str, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> ShardLayout:
    """Where each tensor is put (see :func:`laid_out`): the same bytes for the same tensors."""
    infos = laid_out(tensors)
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    for name, info in infos.items():
        offsets = [info.start, info.end]
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    starts = {name: len(head) + info.start for name, info in infos.items()}
    size = len(head) + sum(info.nbytes for info in infos.values())
    return ShardLayout(file, head, starts, size)


def index_of(files: Mapping[str, Sequence[Tensor]]) -> bytes | None:
    """``model.safetensors.index.json``; ``None`` for a single file, which needs none."""
    if list(files) == [BASE_WEIGHTS]:
        return None
    everything = [tensor for tensors in files.values() for tensor in tensors]
    data = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in everything)},
        "weight_map": dict(
            sorted((tensor.name, file) for file, tensors in files.items() for tensor in tensors)
        ),
    }
    return (json.dumps(data, indent=2) + "\n").encode()
