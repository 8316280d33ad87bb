"""LoKr at a site: a Kronecker product, ``kron(w1, w2) * scale``.

Follows PEFT 0.21, ``tuners/lokr/layer.py``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan
from ..adapter.factors import RowPart
from . import lycoris
from .deltas import Delta, Roles, pads_differently
from .lycoris import LycorisFactors
from .method import Method
from .new_site import NewSite
from .stacked_part import StackedPart, Taken

_CORE = "ijkl,ip,jr->prkl"
"""A kernel's tensor (i, j, *kernel) with out (i, p) and in (j, r)."""
_ROLES = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
"""In the order in which PEFT draws their first values."""


class LokrFactors(LycorisFactors):
    """``kron(w1, w2) * scale``; w1 and w2 may each be a product of low rank."""

    def __init__(self, site: SitePlan, shape: ModuleShape, roles: Roles) -> None:
        super().__init__(site, shape, roles)
        self.scaled_rows = bool(site.settings.get("rank_dropout_scale"))

    def product(self) -> Tensor:
        w1, w2 = self.factors()
        if w2.dim() == 3:
            # a full w2 of a Conv1d: torch.kron pads w1 in front, and PEFT trains with that
            return torch.kron(w1, w2.contiguous())
        # torch.kron cannot do some of the shapes with a last dimension of 1
        return w1[:, None, :, None, None] * w2.reshape(1, w2.shape[0], 1, w2.shape[1], -1)

    def delta(self, module: nn.Module, x: Tensor) -> Tensor:
        if len(self.shape) > 2:
            return super().delta(module, x)
        w1, w2 = self.factors()
        grid = x.to(w2).reshape(*x.shape[:-1], w1.shape[1], w2.shape[1])
        return (w1 @ F.linear(grid, w2)).flatten(-2) * self.scale

    def linear_parts(self, weight: float) -> tuple[RowPart, ...]:
        w1, w2 = self.factors()
        return (Kronecker(w1 * (self.scale * weight), w2),)

    def factors(self) -> tuple[Tensor, Tensor]:
        """w1 and w2 as matrices."""
        roles = self.roles
        w1 = roles["w1"] if "w1" in roles else roles["w1_a"] @ roles["w1_b"]
        if "w2" in roles:
            return w1, roles["w2"]
        if "t2" in roles:
            return w1, torch.einsum(_CORE, roles["t2"], roles["w2_a"], roles["w2_b"])
        return w1, roles["w2_a"] @ roles["w2_b"]

    def kept_rows(self, rows: Tensor) -> Tensor:
        return rows / rows.mean() if self.scaled_rows else rows

    def linear_rows(self) -> Delta:
        w1, w2 = self.factors()
        places = torch.arange(self.shape[0], device=w1.device)

        def delta(rows: slice) -> Tensor:
            at, height = places[rows], w2.shape[0]
            left, right = w1[at // height], w2[at % height]
            return (left[:, :, None] * right[:, None]).flatten(1).mul_(self.scale)

        return delta


@dataclass(frozen=True, eq=False)
class Kronecker(StackedPart):
    """``delta(x) = kron(w1, w2) x``: w1 (out1, in1) with scale and weight in it, w2 (out2, in2)."""

    w1: Tensor
    w2: Tensor

    @property
    def kind(self) -> Hashable:
        return (type(self), self.w1.shape, self.w2.shape)

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        count, outer1, inner1 = self.w1.shape
        outer2, inner2 = self.w2.shape[1:]
        grid = taken.x.to(self.w2).reshape(count, -1, inner2)
        low = torch.bmm(grid, self.w2.mT).view(count, -1, inner1, outer2)
        # (in1, tokens * out2), so that one product serves all tokens
        low = low.transpose(1, 2).reshape(count, inner1, -1)
        return torch.bmm(self.w1, low).view(count, outer1, -1, outer2).transpose(1, 2)


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation, by ``init_weights``: w1 (or its first factor) is zero; with
    ``lycoris`` w2 (or its second factor) is; with false nothing is."""
    how = new.config.get("init_weights", True)
    zero = ("w2", "w2_b") if how == "lycoris" else ("w1", "w1_a") if how else ()
    return lycoris.initial(new, _ROLES, zero)


METHOD = Method(
    "LOKR",
    LokrFactors.build,
    delta_weight=LokrFactors.merged,
    unmergeable=pads_differently,
    input_roles=frozenset(_ROLES),
    initial=initial,
)
