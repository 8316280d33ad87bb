"""A pair of LoRA factors at a linear module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapter.factors import RowPart
from ..routing.low_rank import LowRank, Scaling
from .deltas import Roles


class LinearFactors:
    """At a linear module: A (r, in), B (out, r), and optionally B's bias (out)."""

    __slots__ = ("a", "b", "bias", "dropout", "scale")

    def __init__(self, roles: Roles, scale: float, dropout: float = 0.0) -> None:
        self.a = roles["A"]
        self.b = roles["B"]
        self.bias = roles.get("B_bias")
        self.scale = scale
        self.dropout = dropout

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        a, b = self.a, self.b
        if x.dtype is not a.dtype or x.device != a.device:
            x = x.to(a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        low = F.linear(x, a)
        if low.dtype is b.dtype is out.dtype and self.bias is None and x.device == out.device:
            # one kernel for the product, the scale and the sum
            flat = torch.addmm(
                out.reshape(-1, b.shape[0]),
                low.reshape(-1, b.shape[1]),
                b.t(),
                alpha=self.scale * weight,
            )
            return flat.view(out.shape)
        return out + (F.linear(low, b, self.bias) * (self.scale * weight)).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if self.dropout and module.training:
            return None
        scale = self.scale * weight
        low = LowRank(self.a, self.b * scale)
        return (low,) if self.bias is None else (low, Scaling(shift=self.bias * scale))
