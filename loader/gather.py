"""The factors of a batch's rows at one site, gathered once and applied as batched products.

Factors that are low-rank at a linear module are gathered into one tensor per side, (rows, in, r)
and (rows, r, out), each row's adapters side by side along r with their scales and weights folded
into the second; two batched products then serve all rows, however many adapters they name. What
cannot be written so (embeddings, convolutions, methods that change the input) is applied to its
own rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn

from ..manifests.weights import Weight, weight_at
from .adapter import Adapter

if TYPE_CHECKING:
    from .sites import Factors

    Acting = tuple[tuple[Factors, float], ...]

Terms = tuple[tuple[Adapter, Weight], ...]


@dataclass(frozen=True)
class LowRank:
    """``delta(x) = b @ (a @ x) + shift``: a (r, in), b (out, r) with scale and weight in it, shift
    (out); what is ``None`` is not there."""

    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    shift: torch.Tensor | None = None


@runtime_checkable
class Gatherable(Protocol):
    """Factors that are low-rank at a linear module."""

    def low_rank(self, module: nn.Module, weight: float) -> LowRank | None:
        """The delta times ``weight``; ``None`` where it is not of that kind now (dropout)."""
        ...


class RowFactors(Protocol):
    """What a batch's rows do at one site."""

    adapters: frozenset[Adapter]
    nbytes: int

    def add(
        self, module: nn.Module, x: torch.Tensor, base: torch.Tensor, repeat: int
    ) -> torch.Tensor:
        """``base`` with each row's deltas; row ``i`` stands ``repeat`` times, in place."""
        ...


def gather(
    name: str,
    module: nn.Module,
    factors: Mapping[Adapter, tuple[Factors, ...]],
    rows: Sequence[Terms],
) -> RowFactors | None:
    """What ``rows`` (each row's adapters with weights) do at the site ``name`` of ``factors``;
    ``None`` where no row has anything there."""
    acting: list[Acting] = [
        tuple(
            (one, at)
            for adapter, weight in terms
            if (at := weight_at(weight, name))
            for one in factors.get(adapter, ())
        )
        for terms in rows
    ]
    if not any(acting):
        return None
    adapters = frozenset(a for terms in rows for a, _ in terms if a in factors)
    low_ranks: list[list[LowRank]] = []
    for row in acting:
        parts = [low_rank_of(one, module, weight) for one, weight in row]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return SplitRows(acting, adapters)
        low_ranks.append(whole)
    return LowRankRows(low_ranks, adapters)


def low_rank_of(factors: Factors, module: nn.Module, weight: float) -> LowRank | None:
    """The delta of ``factors`` times ``weight``, where it is low-rank at a linear module."""
    return factors.low_rank(module, weight) if isinstance(factors, Gatherable) else None


class LowRankRows:
    """All rows at once. ``a`` (rows, in, r) and ``b`` (rows, r, out), padded with zeros to the
    largest rank; ``shift`` (rows, 1, out)."""

    def __init__(self, rows: Sequence[Sequence[LowRank]], adapters: frozenset[Adapter]) -> None:
        self.adapters = adapters
        self.a, self.b = _side_by_side(rows)
        self.shift = _shifts(rows)
        held = (self.a, self.b, self.shift)
        self.nbytes = sum(t.numel() * t.element_size() for t in held if t is not None)

    def add(
        self, module: nn.Module, x: torch.Tensor, base: torch.Tensor, repeat: int
    ) -> torch.Tensor:
        out = base
        if self.a is not None and self.b is not None:
            count = len(self.a)
            low = torch.bmm(x.to(self.a).reshape(count, -1, x.shape[-1]), self.a)
            flat = base.reshape(count, -1, base.shape[-1])
            if flat.dtype is low.dtype and flat.device == low.device:
                out = torch.baddbmm(flat, low, self.b).view(base.shape)
            else:
                out = base + torch.bmm(low, self.b).view(base.shape).to(base.device)
        if self.shift is not None:
            count = len(self.shift)
            shifted = out.reshape(count, -1, out.shape[-1]) + self.shift.to(out.device)
            out = shifted.view(base.shape)
        return out


class SplitRows:
    """The rows of each set of adapters apart, as if they were a batch of their own."""

    def __init__(self, acting: Sequence[Acting], adapters: frozenset[Adapter]) -> None:
        self.adapters = adapters
        self.nbytes = 0
        parts: dict[Acting, list[int]] = {}
        for at, row in enumerate(acting):
            if row:
                parts.setdefault(row, []).append(at)
        self.parts = tuple(parts.items())

    def add(
        self, module: nn.Module, x: torch.Tensor, base: torch.Tensor, repeat: int
    ) -> torch.Tensor:
        out = base
        for acting, rows in self.parts:
            at = rows_at(rows, repeat, base.device)
            mine = base.index_select(0, at)
            result = mine
            for factors, weight in acting:
                result = factors.add(
                    module, x.index_select(0, at.to(x.device)), mine, result, weight
                )
            wide = torch.promote_types(out.dtype, result.dtype)
            out = out.to(wide).index_copy(0, at, result.to(wide))
        return out


def rows_at(rows: Sequence[int], repeat: int, device: torch.device) -> torch.Tensor:
    """Where in a batch the ``rows`` stand, each ``repeat`` times in place: (rows * repeat,)."""
    at = [row * repeat + n for row in rows for n in range(repeat)]
    return torch.tensor(at, device=device)


def _side_by_side(
    rows: Sequence[Sequence[LowRank]],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    pairs = [[(p.a, p.b) for p in row if p.a is not None and p.b is not None] for row in rows]
    flat = [pair for row in pairs for pair in row]
    if not flat:
        return None, None
    (first, second), *_ = flat
    dtype = first.dtype
    for one, other in flat:
        dtype = torch.promote_types(torch.promote_types(dtype, one.dtype), other.dtype)
    rank = max(sum(one.shape[0] for one, _ in row) for row in pairs)
    a = first.new_zeros(len(rows), first.shape[1], rank, dtype=dtype)
    b = second.new_zeros(len(rows), rank, second.shape[0], dtype=dtype)
    for at, row in enumerate(pairs):
        start = 0
        for one, other in row:
            end = start + one.shape[0]
            a[at, :, start:end] = one.t()
            b[at, start:end] = other.t()
            start = end
    return a, b


def _shifts(rows: Sequence[Sequence[LowRank]]) -> torch.Tensor | None:
    shifts = [[p.shift for p in row if p.shift is not None] for row in rows]
    first = next((shift for row in shifts for shift in row), None)
    if first is None:
        return None
    zero = torch.zeros_like(first)
    return torch.stack([sum(row, start=zero) for row in shifts]).unsqueeze(1)
