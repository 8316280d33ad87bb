"""What LoHa and LoKr share: a delta of the weight's own shape.

Follows PEFT 0.21, ``tuners/lycoris_utils.py`` and the layers of both: each forward computes the
delta and uses it with the module's stride, padding, dilation and groups. At a linear module the
delta is not computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan
from ...registry.methods.lycoris import inner_of
from ..adapter.factors import RowPart
from .convolutions import CONVOLUTIONS, Kernel
from .deltas import Delta, Roles
from .new_site import NewSite


class LycorisFactors(ABC):
    """A delta of the module's weight, (out, in / groups, *kernel), computed from ``roles``."""

    def __init__(self, site: SitePlan, shape: ModuleShape, roles: Roles) -> None:
        self.roles = roles
        self.scale = site.scale
        self.shape = (shape.out_features or 0, inner_of(shape), *shape.kernel)
        self.module_dropout = float(site.settings.get("module_dropout", 0))
        self.rank_dropout = float(site.settings.get("rank_dropout", 0))

    @classmethod
    def build(
        cls, site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float
    ) -> LycorisFactors:
        """See ``Method.build``; the settings have these methods' own kinds of dropout."""
        return cls(site, shape, roles)

    @abstractmethod
    def product(self) -> Tensor:
        """The delta without its scale, in any shape of as many elements."""

    @abstractmethod
    def kept_rows(self, rows: Tensor) -> Tensor:
        """The factors of the delta's rows under rank dropout, from zeros and ones."""

    def delta_weight(self) -> Tensor:
        """The delta, scaled, in the weight's shape."""
        return (self.product() * self.scale).reshape(self.shape)

    def delta(self, module: nn.Module, x: Tensor) -> Tensor:
        """The output that the delta adds for ``x``."""
        delta = self.delta_weight()
        x = x.to(delta)
        if delta.dim() == 2:
            return F.linear(x, delta)
        conv = cast(nn.Conv2d, module)
        convolve = CONVOLUTIONS[delta.dim()]
        return convolve(x, delta, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        if module.training and self.module_dropout and torch.rand(1) <= self.module_dropout:
            return out
        delta = self.delta(module, x)
        if module.training and self.rank_dropout:
            rows = torch.rand(self.shape[0]) > self.rank_dropout
            kept = self.kept_rows(rows.to(delta))
            delta = delta * kept.view(-1, *(1,) * (len(self.shape) - 2))
        return out + (delta * weight).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if module.training and (self.module_dropout or self.rank_dropout):
            return None
        if len(self.shape) > 2:
            return (Kernel(self.delta_weight() * weight),)
        return self.linear_parts(weight)

    @abstractmethod
    def linear_parts(self, weight: float) -> tuple[RowPart, ...]:
        """See :meth:`parts`, at a linear module."""

    @classmethod
    def merged(
        cls, site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
    ) -> Delta:
        """See ``Method.delta_weight``."""
        factors = cls(site, shape, roles)
        if weight.dim() == 2:
            return factors.linear_rows()
        delta = factors.delta_weight()
        return lambda rows: delta[rows]

    @abstractmethod
    def linear_rows(self) -> Delta:
        """The delta's rows at a linear module."""


def initial(new: NewSite, order: Iterable[str], zero: Collection[str]) -> Roles:
    """PEFT's initialisation: the roles ``zero`` are zero, the others as ``nn.Linear``'s weight."""
    return {
        role: new.zeros(role) if role in zero else new.uniform(role)
        for role in order
        if role in new.shapes
    }
