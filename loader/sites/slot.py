"""The buffers of one module in a compiled base."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..routing.low_rank import LowRank


class Slot:
    """A (rank, in) and B (out, rank) of one module, in dtype and device of ``like``."""

    def __init__(self, like: LowRank, rank: int) -> None:
        self.a = like.a.new_zeros(rank, like.a.shape[1])
        self.b = like.b.new_zeros(like.b.shape[0], rank)

    def add(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """``out + B A x``, traced into the graph."""
        return out + F.linear(F.linear(x.to(self.a.dtype), self.a), self.b).to(out.dtype)

    def fill(self, parts: Iterable[LowRank]) -> None:
        """Copy the factors in, one after another; the rest is zero."""
        at = 0
        self.b.zero_()
        for part in parts:
            end = at + part.a.shape[0]
            self.a[at:end].copy_(part.a)
            self.b[:, at:end].copy_(part.b)
            at = end
