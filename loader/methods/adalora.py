"""AdaLoRA at a site (https://arxiv.org/abs/2303.10512): ``out + scale * B(E * A(x))``.

Follows PEFT 0.21, ``tuners/adalora/layer.py``. Inference only: its training moves ranks between
modules and adds a term to the loss, which is not done here.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ..adapter.factors import Factors, RowPart
from ..routing.low_rank import LowRank
from .convolutions import Kernel
from .deltas import Delta, Roles, pads_differently, product_rows
from .method import Method


class LinearFactors:
    """At a linear module: A (r, in), E (r, 1), B (out, r)."""

    __slots__ = ("a", "b", "e", "scale")

    def __init__(self, roles: Roles, scale: float) -> None:
        self.a, self.b, self.e = roles["A"], roles["B"], roles["E"]
        self.scale = scale

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        low = F.linear(x.to(self.a), self.a * self.e)
        return out + (F.linear(low, self.b) * (self.scale * weight)).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (LowRank(self.a * self.e, self.b * (self.scale * weight)),)


class ConvFactors(LinearFactors):
    """At a convolution: A (r, in * kernel), E (r, 1), B (out, r)."""

    __slots__ = ("shape",)

    def __init__(self, roles: Roles, scale: float, shape: ModuleShape) -> None:
        super().__init__(roles, scale)
        self.shape = (shape.in_features or 0, *shape.kernel)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        conv = cast(nn.Conv2d, module)
        kernel = self._kernel()
        delta = F.conv2d(x.to(kernel), kernel, None, conv.stride, conv.padding, conv.dilation)
        return out + (delta * (self.scale * weight)).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (Kernel(self._kernel() * (self.scale * weight)),)

    def _kernel(self) -> Tensor:
        return (self.b @ (self.a * self.e)).view(-1, *self.shape)


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site; dropout is for training only."""
    if shape.kind is ModuleKind.CONV:
        return ConvFactors(roles, site.scale, shape)
    return LinearFactors(roles, site.scale)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``scale * B @ (E * A)``."""
    inner = roles["A"] * roles["E"]
    delta = product_rows(roles["B"], inner, site.scale, shape.kind is ModuleKind.CONV1D)
    if shape.kind is not ModuleKind.CONV:
        return delta
    return lambda rows: delta(rows).view(-1, *weight.shape[1:])


METHOD = Method(
    "ADALORA",
    build,
    delta_weight=delta_weight,
    unmergeable=pads_differently,
    input_roles=frozenset({"A", "B", "E"}),
)
