"""LoKr at a site: a Kronecker product, ``kron(w1, w2) * scale``.

Follows PEFT 0.21, ``tuners/lokr/layer.py``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan
from ..adapter.factors import Factors, RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked
from . import lycoris
from .deltas import Delta, Roles
from .lycoris import WeightFactors
from .method import Method
from .new_site import NewSite

_CORE = "ijkl,ip,jr->prkl"
"""A kernel's tensor (i, j, *kernel) with out (i, p) and in (j, r)."""


class LokrFactors(WeightFactors):
    """``kron(w1, w2) * scale``, of which either may be a product of low rank."""

    def __init__(self, site: SitePlan, shape: ModuleShape, roles: Roles) -> None:
        super().__init__(site, shape, roles)
        self.scaled_rows = bool(site.settings.get("rank_dropout_scale"))

    def product(self) -> Tensor:
        w1, w2 = self.factors()
        if w2.dim() == 3:
            # a whole w2 of a Conv1d: torch.kron pads w1 in front, and PEFT trains with that
            return torch.kron(w1, w2.contiguous())
        # by hand: torch.kron cannot do some of the shapes with a last dimension of 1
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
        """Both factors of the product, written out."""
        roles = self.roles
        w1 = roles["w1"] if "w1" in roles else roles["w1_a"] @ roles["w1_b"]
        if "w2" in roles:
            return w1, roles["w2"]
        if "t2" in roles:
            return w1, torch.einsum(_CORE, roles["t2"], roles["w2_a"], roles["w2_b"])
        return w1, roles["w2_a"] @ roles["w2_b"]

    def kept_rows(self, rows: Tensor) -> Tensor:
        return rows / rows.mean() if self.scaled_rows else rows


@dataclass(frozen=True, eq=False)
class Kronecker(RowPart):
    """``delta(x) = kron(w1, w2) x``, scale and weight in w1."""

    w1: Tensor
    w2: Tensor

    @property
    def kind(self) -> Hashable:
        return (type(self), self.w1.shape, self.w2.shape)

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Kronecker]], rows: int) -> RowDelta:
        return KroneckerRows(parts, rows)


class KroneckerRows:
    """``w1`` (entries, out1, in1) and ``w2`` (entries, out2, in2)."""

    def __init__(self, parts: Sequence[tuple[int, Kronecker]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        self.w1 = stacked([part.w1 for _, part in parts])
        self.w2 = stacked([part.w2 for _, part in parts])
        wide = torch.promote_types(self.w1.dtype, self.w2.dtype)
        self.w1, self.w2 = self.w1.to(wide), self.w2.to(wide)
        self.nbytes = size_of(self.w1, self.w2)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        count, (outer1, inner1), (outer2, inner2) = (
            len(self.entries),
            self.w1.shape[1:],
            self.w2.shape[1:],
        )
        grid = self.entries.take(x, repeat).to(self.w2).reshape(count, -1, inner2)
        low = torch.bmm(grid, self.w2.mT).view(count, -1, inner1, outer2)
        # (in1, tokens * out2), so that one product serves all tokens
        low = low.transpose(1, 2).reshape(count, inner1, -1)
        delta = torch.bmm(self.w1, low).view(count, outer1, -1, outer2).transpose(1, 2)
        return self.entries.add(out, delta.reshape(count, repeat, *out.shape[1:]), repeat)


def changes(site: SitePlan, roles: Roles) -> bool:
    """Whether the delta is anything but zero: no factor of it is."""
    return site.scale != 0 and all(bool(factor.any()) for factor in roles.values())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site, from placed tensors by role."""
    return LokrFactors(site, shape, roles)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """The delta that the live adapter makes."""
    factors = LokrFactors(site, shape, roles)
    if weight.dim() > 2:
        whole = factors.delta_weight()
        return lambda rows: whole[rows]
    w1, w2 = factors.factors()
    places = torch.arange(weight.shape[0], device=w1.device)

    def delta(rows: slice) -> Tensor:
        at, height = places[rows], w2.shape[0]
        left, right = w1[at // height], w2[at % height]
        return (left[:, :, None] * right[:, None]).flatten(1).mul_(site.scale)

    return delta


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: all as ``nn.Linear`` begins, and one zero, so that the delta is: w1
    (or its first factor), with ``init_weights: lycoris`` w2 (or its second), with false none."""
    how = new.config.get("init_weights", True)
    zero = ("w2", "w2_b") if how == "lycoris" else ("w1", "w1_a") if how else ()
    every = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    order = [role for role in every if role in new.shapes]
    return {role: new.zeros(role) if role in zero else new.uniform(role) for role in order}


PARAMETERS: Mapping[str, str] = {
    role: f"lokr_{role}.{{adapter}}" for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
}
"""PEFT's live names of the roles, after the module's own."""


METHOD = Method(
    "LOKR",
    lycoris.unsupported,
    changes,
    build,
    PARAMETERS,
    delta_weight=delta_weight,
    unmergeable=lycoris.unmergeable,
    input_roles=frozenset(PARAMETERS),
    initial=initial,
)
