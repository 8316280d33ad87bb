"""LoHa at a site (https://arxiv.org/abs/2108.06098): two products of low rank, multiplied.

Follows PEFT 0.21, ``tuners/loha/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from .lycoris import Roles, WeightFactors

_CORE = "ijkl,jr,ip->prkl"
"""A kernel's tensor (i, j, *kernel) with in (j, r) and out (i, p)."""


class LohaFactors(WeightFactors):
    """``(w1_a w1_b) * (w2_a w2_b) * scale``, element by element."""

    def product(self) -> torch.Tensor:
        return self._half("1") * self._half("2")

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


PARAMETERS: Mapping[str, str] = {
    role: f"hada_{role}.{{adapter}}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}
"""PEFT's live names of the roles, after the module's own."""
