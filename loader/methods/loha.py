"""LoHa at a site (https://arxiv.org/abs/2108.06098): two products of low rank, multiplied.

Follows PEFT 0.21, ``tuners/loha/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from .deltas import Delta, Roles
from .lycoris import WeightFactors

_CORE = "ijkl,jr,ip->prkl"
"""A kernel's tensor (i, j, *kernel) with in (j, r) and out (i, p)."""


class LohaFactors(WeightFactors):
    """``(w1_a w1_b) * (w2_a w2_b) * scale``, element by element."""

    def product(self) -> torch.Tensor:
        return self._half("1") * self._half("2")

    def delta(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a1, a2, b1, b2 = (self.roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
        rank = b1.shape[0] * b2.shape[0]
        if len(self.shape) > 2 or rank >= min(self.shape):
            return super().delta(module, x)
        # the products' rows and columns in pairs: the same delta, of rank r * r
        a = (a1[:, :, None] * a2[:, None]).flatten(1)
        b = (b1[:, None] * b2).flatten(0, 1)
        return F.linear(F.linear(x.to(b), b), a) * self.scale

    def _half(self, n: str) -> torch.Tensor:
        a, b, core = self.roles[f"w{n}_a"], self.roles[f"w{n}_b"], self.roles.get(f"t{n}")
        return a @ b if core is None else torch.einsum(_CORE, core, b, a)

    def kept_rows(self, rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.mean()


def changes(site: SitePlan, roles: Mapping[str, torch.Tensor]) -> bool:
    """Whether the delta is anything but zero: no factor of it is."""
    return site.scale != 0 and all(bool(factor.any()) for factor in roles.values())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site, from placed tensors by role."""
    return LohaFactors(site, shape, roles)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: torch.Tensor, roles: Roles
) -> Delta:
    """The delta that the live adapter makes."""
    if weight.dim() > 2:
        whole = LohaFactors(site, shape, roles).delta_weight()
        return lambda rows: whole[rows]
    a1, a2, b1, b2 = (roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
    return lambda rows: (a1[rows] @ b1).mul_(a2[rows] @ b2).mul_(site.scale)


PARAMETERS: Mapping[str, str] = {
    role: f"hada_{role}.{{adapter}}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}
"""PEFT's live names of the roles, after the module's own."""
