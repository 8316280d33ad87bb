"""LoHa at a site (https://arxiv.org/abs/2108.06098): two products of low rank, multiplied.

Follows PEFT 0.21, ``tuners/loha/layer.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapter.factors import RowPart
from ..routing.low_rank import LowRank
from . import lycoris
from .deltas import Delta, Roles, pads_differently
from .lycoris import LycorisFactors
from .method import Method
from .new_site import NewSite
from .stacked_part import StackedPart, Taken

_CORE = "ijkl,jr,ip->prkl"
"""A kernel's tensor (i, j, *kernel) with in (j, r) and out (i, p)."""
_COPIES = 4
"""How many times larger than the factors their pairs may be in a mixed batch: pairs are faster at
small ranks (8 rows of SmolLM2's linears, decode: rank 8 as fast, rank 16 three times slower), and
grow with the square of the rank."""
_ROLES = ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
"""In the order in which PEFT draws their first values."""


class LohaFactors(LycorisFactors):
    """``(w1_a w1_b) * (w2_a w2_b) * scale``, element by element."""

    def product(self) -> Tensor:
        return self._half("1") * self._half("2")

    def delta(self, module: nn.Module, x: Tensor) -> Tensor:
        b1, b2 = self.roles["w1_b"], self.roles["w2_b"]
        if len(self.shape) > 2 or b1.shape[0] * b2.shape[0] >= min(self.shape):
            return super().delta(module, x)
        a, b = self._in_pairs()
        return F.linear(F.linear(x.to(b), b), a) * self.scale

    def linear_parts(self, weight: float) -> tuple[RowPart, ...]:
        a1, a2, b1, b2 = (self.roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
        ranks = b1.shape[0], b2.shape[0]
        if ranks[0] * ranks[1] <= _COPIES * sum(ranks):
            a, b = self._in_pairs()
            return (LowRank(b, a * (self.scale * weight)),)
        return (Hadamard(a1 * (self.scale * weight), b1, a2, b2),)

    def _in_pairs(self) -> tuple[Tensor, Tensor]:
        """The same delta as one product of rank r * r: (out, r * r) and (r * r, in)."""
        a1, a2, b1, b2 = (self.roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
        return (a1[:, :, None] * a2[:, None]).flatten(1), (b1[:, None] * b2).flatten(0, 1)

    def _half(self, n: str) -> Tensor:
        a, b, core = self.roles[f"w{n}_a"], self.roles[f"w{n}_b"], self.roles.get(f"t{n}")
        return a @ b if core is None else torch.einsum(_CORE, core, b, a)

    def kept_rows(self, rows: Tensor) -> Tensor:
        return rows / rows.mean()

    def linear_rows(self) -> Delta:
        a1, a2, b1, b2 = (self.roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
        return lambda rows: (a1[rows] @ b1).mul_(a2[rows] @ b2).mul_(self.scale)


@dataclass(frozen=True, eq=False)
class Hadamard(StackedPart):
    """``delta(x) = ((a1 b1) * (a2 b2)) x``: a (out, r), b (r, in), scale and weight in a1.

    A stack does not compute the products: for each row of b2 the input is multiplied by it, goes
    through a1 b1, and is multiplied by the column of a2.
    """

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        count, _, inner = self.b1.shape
        mine = taken.x.to(self.b1).reshape(count, -1, 1, inner)
        many = (mine * self.b2[:, None]).flatten(1, 2)  # (entries, tokens * r2, in)
        ranks = self.b2.shape[1], self.b1.shape[1]
        low = torch.bmm(many, self.b1.mT).view(count, -1, *ranks).mT
        wide = torch.bmm(low.reshape(count, -1, ranks[0]), self.a2.mT)
        wide = wide.view(count, -1, ranks[1], self.a2.shape[1])
        return (wide * self.a1.mT[:, None]).sum(2)


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation; the delta is zero, unless ``init_weights`` is false."""
    return lycoris.initial(new, _ROLES, {"w2_b"} if new.config.get("init_weights", True) else ())


METHOD = Method(
    "LOHA",
    LohaFactors.build,
    delta_weight=LohaFactors.merged,
    unmergeable=pads_differently,
    input_roles=frozenset(_ROLES),
    initial=initial,
)
