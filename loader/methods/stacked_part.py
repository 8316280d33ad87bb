"""Parts of a mixed batch that run stacked: one entry for each row and adapter."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..adapter.factors import RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked


class Taken(NamedTuple):
    """The entries of one call of a module. ``batch_x`` and ``batch_base`` are those of all rows."""

    entries: Entries
    repeat: int
    batch_x: Tensor
    batch_base: Tensor

    @property
    def x(self) -> Tensor:
        """The entries' inputs: (entries, repeat, ...)."""
        return self.entries.take(self.batch_x, self.repeat)

    @property
    def base(self) -> Tensor:
        """What the module itself returned for them: (entries, repeat, ...)."""
        return self.entries.take(self.batch_base, self.repeat)


class StackedPart(RowPart):
    """A dataclass. A stack of parts of one kind has the same class: each tensor is then
    (entries, ...), and all floating-point tensors have one dtype; a number is a tensor (entries,);
    other fields are equal in all parts."""

    stacked = staticmethod(stacked)
    """Makes one tensor (entries, ...) of those of the parts: pads with zeros at the end."""

    @abstractmethod
    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        """What a stack adds to the outputs of its entries: (entries, ...) with the outputs' number
        of elements."""

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Any]], rows: int) -> RowDelta:
        return StackedRows(parts, rows)


class StackedRows:
    """The rows of a batch that have a part of one kind."""

    def __init__(self, parts: Sequence[tuple[int, Any]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        first = parts[0][1]
        values = {
            field.name: [getattr(part, field.name) for _, part in parts]
            for field in dataclasses.fields(first)
        }
        tensors = {n: first.stacked(v) for n, v in values.items() if isinstance(v[0], Tensor)}
        floats = [t.dtype for t in tensors.values() if t.is_floating_point()]
        wide = functools.reduce(torch.promote_types, floats)
        tensors = {n: t.to(wide) if t.is_floating_point() else t for n, t in tensors.items()}
        self.nbytes = size_of(*tensors.values())
        weights = {n: torch.tensor(v) for n, v in values.items() if isinstance(v[0], int | float)}
        self.stack: StackedPart = dataclasses.replace(first, **tensors, **weights)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        delta = self.stack.delta(module, Taken(self.entries, repeat, x, base))
        shape = (len(self.entries), repeat, *out.shape[1:])
        return self.entries.add(out, delta.reshape(shape), repeat)
