"""The deltas of a batch's rows at one site, gathered once and applied as batched products.

Factors give their deltas as *parts* (low-rank factors, a rescaled output, a changed input ...).
The parts of one kind are stacked, one entry for each row and adapter, and applied to all of their
rows by the same few products, however many adapters the rows name. Each kind at a site is gathered
by itself. Factors without parts (dropout in training) are applied to their own rows alone.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ...manifests.language.weights import weight_at
from ..adapter.adapter import Adapter, Terms
from ..adapter.factors import Factors, RowDelta, RowPart


@dataclass(frozen=True)
class RowFactors:
    """The deltas of a batch's rows at one site; ``of`` are the base's tensors in them."""

    adapters: frozenset[Adapter]
    deltas: tuple[RowDelta, ...]
    of: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(delta.nbytes for delta in self.deltas)

    def add(
        self, module: nn.Module, x: torch.Tensor, base: torch.Tensor, repeat: int
    ) -> torch.Tensor:
        """``base`` with each row's deltas; each row is there ``repeat`` times in a row."""
        out = base
        for delta in self.deltas:
            out = delta.add(module, x, base, out, repeat)
        return out


def gather(
    name: str,
    module: nn.Module,
    factors: Mapping[Adapter, tuple[Factors, ...]],
    rows: Sequence[Terms],
) -> RowFactors | None:
    """The deltas of ``rows`` (each row's adapters with weights) at the site ``name`` with these
    ``factors``; ``None`` if no row has any."""
    kinds: dict[Hashable, list[tuple[int, RowPart]]] = {}
    apart: dict[tuple[tuple[Factors, float], ...], list[int]] = {}
    # an adapter of several rows is asked once
    known: dict[tuple[int, float], tuple[RowPart, ...] | None] = {}
    for row, terms in enumerate(rows):
        rest: list[tuple[Factors, float]] = []
        for adapter, weight in terms:
            at = weight_at(weight, name)
            for own in factors.get(adapter, ()) if at else ():
                key = (id(own), at)
                if key not in known:
                    known[key] = own.parts(module, at)
                parts = known[key]
                if parts is None:
                    rest.append((own, at))
                for part in parts or ():
                    kinds.setdefault(part.kind, []).append((row, part))
        if rest:
            apart.setdefault(tuple(rest), []).append(row)
    deltas: list[RowDelta] = [
        type(parts[0][1]).gathered(parts, len(rows)) for parts in kinds.values()
    ]
    if apart:
        deltas.append(SplitRows(apart))
    if not deltas:
        return None
    adapters = frozenset(a for terms in rows for a, _ in terms if a in factors)
    of = [tensor for parts in kinds.values() for _, part in parts for tensor in part.of]
    return RowFactors(adapters, tuple(deltas), tuple({id(t): t for t in of}.values()))


class Entries:
    """The rows of a batch that have a part of some kind: one entry a part, in their order."""

    def __init__(self, parts: Sequence[tuple[int, Any]], rows: int) -> None:
        self.rows = tuple(row for row, _ in parts)
        self._count = rows
        self._all = self.rows == tuple(range(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, x: torch.Tensor, repeat: int) -> torch.Tensor:
        """The entries' rows of ``x`` (rows * repeat, ...): (entries, repeat, ...)."""
        apart = x.reshape(self._count, repeat, *x.shape[1:])
        return apart if self._all else apart.index_select(0, self._at(x.device))

    def add(self, out: torch.Tensor, delta: torch.Tensor, repeat: int) -> torch.Tensor:
        """``out`` (rows * repeat, ...) with ``delta`` (entries, repeat, ...) added to its rows, in
        the wider dtype of both."""
        delta = delta.to(out.device)
        if self._all:
            return out + delta.reshape(out.shape)
        wide = torch.promote_types(out.dtype, delta.dtype)
        apart = out.to(wide).reshape(self._count, repeat, *out.shape[1:])
        return apart.index_add(0, self._at(out.device), delta.to(wide)).view(out.shape)

    def _at(self, device: torch.device) -> torch.Tensor:
        return torch.tensor(self.rows, device=device)


class SplitRows:
    """The rows of each set of adapters by themselves, as if they were a batch of their own."""

    nbytes = 0

    def __init__(self, apart: Mapping[tuple[tuple[Factors, float], ...], Sequence[int]]) -> None:
        self.apart = apart

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        repeat: int,
    ) -> torch.Tensor:
        for acting, rows in self.apart.items():
            at = rows_at(rows, repeat, base.device)
            mine, theirs = x.index_select(0, at.to(x.device)), base.index_select(0, at)
            # nothing added yet: as in a batch of their own
            result = theirs if out is base else out.index_select(0, at)
            for factors, weight in acting:
                result = factors.add(module, mine, theirs, result, weight)
            wide = torch.promote_types(out.dtype, result.dtype)
            out = out.to(wide).index_copy(0, at, result.to(wide))
        return out


def rows_at(rows: Sequence[int], repeat: int, device: torch.device) -> torch.Tensor:
    """The positions of ``rows`` in a batch, each ``repeat`` times in a row: (rows * repeat,)."""
    at = [row * repeat + n for row in rows for n in range(repeat)]
    return torch.tensor(at, device=device)


def size_of(*held: torch.Tensor | None) -> int:
    """The size of the tensors (bytes); ``None`` counts nothing."""
    return sum(t.numel() * t.element_size() for t in held if t is not None)


def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """``tensors`` as one, padded with zeros at the end of each dimension to the largest of them, in
    the widest dtype of them: (tensors, ...)."""
    first = tensors[0]
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if all(tensor.shape == first.shape for tensor in tensors):
        return torch.stack([tensor.to(dtype) for tensor in tensors])
    largest = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    found = first.new_zeros(len(tensors), *largest, dtype=dtype)
    for at, tensor in enumerate(tensors):
        found[(at, *(slice(size) for size in tensor.shape))] = tensor
    return found


class RowSite(Protocol):
    """A site of the base as rows see it: its module, and the factors of adapters there."""

    name: str
    module: nn.Module
    factors: dict[Adapter, tuple[Factors, ...]]

    def __hash__(self) -> int: ...
