"""An adapter's tensors in the current layout, in new memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ...registry.files.facts import Conversion, Joined, TensorInfo
from .buffer import Buffer, buffer_in_memory
from .dtypes import FLOATS


def repacked(host: Callable[[str], torch.Tensor], conversion: Conversion) -> Buffer:
    """The bytes of a file with ``conversion``'s header. ``host`` returns the original tensors, on
    the CPU.

    Tensors are copied bit for bit; only a piece with a factor is computed, in the wider dtype of
    its header.
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
    kind = FLOATS[info.dtype]
    # made outside of the buffer, where its place may not be aligned
    joined = torch.zeros(math.prod(info.shape), dtype=kind).view(made.view)
    for piece in made.pieces:
        value = host(piece.key)[piece.rows]
        if piece.factor != 1:
            value = value.to(kind) * piece.factor
        joined[piece.at] = value.view(joined[piece.at].shape).to(kind)
    place.copy_(joined.contiguous().view(-1).view(torch.uint8))
