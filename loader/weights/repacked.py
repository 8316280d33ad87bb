"""An adapter's tensors in the layout of today, in memory of their own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ...registry.files.facts import Conversion, Joined, TensorInfo
from .buffer import Buffer, buffer_in_memory

_KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def repacked(host: Callable[[str], torch.Tensor], conversion: Conversion) -> Buffer:
    """The bytes of a file with ``conversion``'s header. ``host`` gives the file's own tensors, on
    the CPU.

    What is copied is copied bit for bit; only a piece with a factor of its own is computed, in
    the wider dtype that its header names.
    """
    infos = conversion.header.tensors
    buffer = buffer_in_memory(b"", max((info.end for info in infos.values()), default=0))
    for name, source in conversion.sources.items():
        info = infos[name]
        place = buffer.data[info.start : info.end]
        if isinstance(source, Joined):
            _join(place, info, source, host)
        else:
            place.copy_(host(source).contiguous().view(-1).view(torch.uint8))
    return buffer


def _join(
    place: torch.Tensor, info: TensorInfo, made: Joined, host: Callable[[str], torch.Tensor]
) -> None:
    kind = _KINDS[info.dtype]
    # where nothing can begin in the buffer it is made beside it
    whole = torch.zeros(math.prod(info.shape), dtype=kind).view(made.view)
    for piece in made.pieces:
        value = host(piece.key)[piece.rows]
        if piece.factor != 1:
            value = value.to(kind) * piece.factor
        whole[piece.at] = value.view(whole[piece.at].shape).to(kind)
    place.copy_(whole.contiguous().view(-1).view(torch.uint8))
