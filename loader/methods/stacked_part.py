"""Parts of a mixed batch that run stacked: one entry for each row and adapter."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter.factors import RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked


class StackedPart(RowPart):
    """A dataclass whose fields are tensors. A stack of parts has the same class: each field is
    then (entries, ...), padded with zeros at the end, and all floats have one dtype."""

    @abstractmethod
    def delta(self, module: nn.Module, x: Tensor) -> Tensor:
        """What a stack adds for its inputs ``x`` (entries, repeat, ...): (entries, ...) with the
        outputs' number of elements."""

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Any]], rows: int) -> RowDelta:
        return StackedRows(parts, rows)


class StackedRows:
    """The rows of a batch that have a part of one kind."""

    def __init__(self, parts: Sequence[tuple[int, Any]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        kind = type(parts[0][1])
        names = [field.name for field in dataclasses.fields(kind)]
        fields = [stacked([getattr(part, name) for _, part in parts]) for name in names]
        wide = functools.reduce(torch.promote_types, [tensor.dtype for tensor in fields])
        fields = [tensor.to(wide) for tensor in fields]
        self.stack: StackedPart = kind(*fields)
        self.nbytes = size_of(*fields)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        delta = self.stack.delta(module, self.entries.take(x, repeat))
        shape = (len(self.entries), repeat, *out.shape[1:])
        return self.entries.add(out, delta.reshape(shape), repeat)
