"""Deltas of low rank at linear modules, and outputs rescaled channel by channel, for rows.

Most methods need one or both: LoRA is ``B A x``, DoRA that and a rescaled output, IA3 only the
latter. Each row's low-rank factors are concatenated along the rank, so that two batched products
serve all rows and all of their adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..adapter.factors import Factors, RowDelta, RowPart
from .batched import size_of


@dataclass(frozen=True, eq=False)
class LowRank(RowPart):
    """``delta(x) = b @ (a @ x)``: a (r, in), b (out, r), which includes scale and weight."""

    a: torch.Tensor
    b: torch.Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, LowRank]], rows: int) -> RowDelta:
        return LowRankRows(parts, rows)


def low_rank_of(factors: Factors, module: nn.Module, weight: float) -> LowRank | None:
    """The delta of ``factors`` times ``weight``, if it is only of low rank."""
    parts = factors.parts(module, weight)
    if parts is None or len(parts) != 1:
        return None
    return parts[0] if isinstance(parts[0], LowRank) else None


class LowRankRows:
    """All rows at once. ``a`` (rows, in, r) and ``b`` (rows, r, out), padded with zeros to the
    largest rank."""

    def __init__(self, parts: Sequence[tuple[int, LowRank]], rows: int) -> None:
        by_row: list[list[LowRank]] = [[] for _ in range(rows)]
        for row, part in parts:
            by_row[row].append(part)
        first = parts[0][1]
        dtypes = (tensor.dtype for _, part in parts for tensor in (part.a, part.b))
        dtype = functools.reduce(torch.promote_types, dtypes)
        rank = max(sum(part.a.shape[0] for part in row) for row in by_row)
        self.a = first.a.new_zeros(rows, first.a.shape[1], rank, dtype=dtype)
        self.b = first.b.new_zeros(rows, rank, first.b.shape[0], dtype=dtype)
        for at, row in enumerate(by_row):
            start = 0
            for part in row:
                end = start + part.a.shape[0]
                self.a[at, :, start:end] = part.a.t()
                self.b[at, start:end] = part.b.t()
                start = end
        self.nbytes = size_of(self.a, self.b)

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        repeat: int,
    ) -> torch.Tensor:
        count = len(self.a)
        low = torch.bmm(x.to(self.a).reshape(count, -1, x.shape[-1]), self.a)
        flat = out.reshape(count, -1, out.shape[-1])
        if flat.dtype is low.dtype and flat.device == low.device:
            return torch.baddbmm(flat, low, self.b).view(out.shape)
        return out + torch.bmm(low, self.b).view(out.shape).to(out.device)


@dataclass(frozen=True, eq=False)
class Scaling(RowPart):
    """``delta(x) = gain * base + shift``, along the channels: (channels,) each, at least in
    float32; channels are the last dimension, or the second."""

    gain: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    channels_last: bool = True
    of: tuple[torch.Tensor, ...] = ()

    @property
    def kind(self) -> tuple[type[RowPart], bool]:
        return (type(self), self.channels_last)

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Scaling]], rows: int) -> RowDelta:
        return ScaledRows(parts, rows)


class ScaledRows:
    """All rows at once. ``gain`` and ``shift`` (rows, channels): the sums of each row's."""

    def __init__(self, parts: Sequence[tuple[int, Scaling]], rows: int) -> None:
        self.gain = _summed([(row, part.gain) for row, part in parts], rows)
        self.shift = _summed([(row, part.shift) for row, part in parts], rows)
        self._last = parts[0][1].channels_last
        self.nbytes = size_of(self.gain, self.shift)

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        repeat: int,
    ) -> torch.Tensor:
        if self.gain is not None:
            gain = self._along(self.gain, out, repeat)
            old = _by_row(base, repeat)
            if gain.dtype is old.dtype is out.dtype:
                out = torch.addcmul(_by_row(out, repeat), old, gain).view(out.shape)
            else:
                out = (_by_row(out, repeat) + old * gain).view(out.shape)
        if self.shift is not None:
            shift = self._along(self.shift, out, repeat)
            out = (_by_row(out, repeat) + shift).view(out.shape)
        return out

    def _along(self, value: torch.Tensor, out: torch.Tensor, repeat: int) -> torch.Tensor:
        """(rows, channels) in the shape of (rows, repeat, *out.shape[1:])."""
        others = (1,) * (out.dim() - 2)
        inner = (*others, value.shape[1]) if self._last else (value.shape[1], *others)
        return value.to(out.device).view(len(value), 1, *inner)


def _by_row(out: torch.Tensor, repeat: int) -> torch.Tensor:
    return out.reshape(out.shape[0] // repeat, repeat, *out.shape[1:])


def _summed(values: Sequence[tuple[int, torch.Tensor | None]], rows: int) -> torch.Tensor | None:
    there = [(row, value) for row, value in values if value is not None]
    if not there:
        return None
    first = there[0][1]
    zero = first.new_zeros(first.shape, dtype=torch.promote_types(first.dtype, torch.float32))
    return torch.stack([sum((v for r, v in there if r == row), start=zero) for row in range(rows)])
