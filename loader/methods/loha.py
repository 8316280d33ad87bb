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
from .lycoris import Roles, WeightFactors
from .new_site import NewSite

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


def initial(new: NewSite) -> Mapping[str, torch.Tensor]:
    """PEFT's initialisation: all as ``nn.Linear`` begins, and one zero (unless ``init_weights`` is
    false), so that the delta is."""
    zero = {"w2_b"} if new.config.get("init_weights", True) else set[str]()
    order = [role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2") if role in new.shapes]
    return {role: new.zeros(role) if role in zero else new.uniform(role) for role in order}


PARAMETERS: Mapping[str, str] = {
    role: f"hada_{role}.{{adapter}}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}
"""PEFT's live names of the roles, after the module's own."""
