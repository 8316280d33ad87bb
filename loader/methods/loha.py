"""LoHa at a site (https://arxiv.org/abs/2108.06098): two products of low rank, multiplied.

Follows PEFT 0.21, ``tuners/loha/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan
from ..adapter.factors import Factors, RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked
from ..routing.low_rank import LowRank
from . import lycoris
from .deltas import Delta, Roles
from .lycoris import WeightFactors
from .method import Method
from .new_site import NewSite

_CORE = "ijkl,jr,ip->prkl"
"""A kernel's tensor (i, j, *kernel) with in (j, r) and out (i, p)."""


_COPIES = 4
"""How many times the factors' own size their pairs may be, gathered for the rows of a batch: the
pairs are faster at small ranks (8 rows of SmolLM2's linears, decode: rank 8 as fast, rank 16 three
times slower), and grow with the square of the rank."""


class LohaFactors(WeightFactors):
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
        """The products' columns and rows in pairs, the same delta of rank r * r: (out, r * r) and
        (r * r, in)."""
        a1, a2, b1, b2 = (self.roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
        return (a1[:, :, None] * a2[:, None]).flatten(1), (b1[:, None] * b2).flatten(0, 1)

    def _half(self, n: str) -> Tensor:
        a, b, core = self.roles[f"w{n}_a"], self.roles[f"w{n}_b"], self.roles.get(f"t{n}")
        return a @ b if core is None else torch.einsum(_CORE, core, b, a)

    def kept_rows(self, rows: Tensor) -> Tensor:
        return rows / rows.mean()


@dataclass(frozen=True, eq=False)
class Hadamard(RowPart):
    """``delta(x) = ((a1 b1) * (a2 b2)) x``: a (out, r), b (r, in), scale and weight in a1."""

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Hadamard]], rows: int) -> RowDelta:
        return HadamardRows(parts, rows)


class HadamardRows:
    """All factors (entries, ...), zero where an entry has less than the largest rank. The products
    are never made: for each row of b2 the input is multiplied by it, goes through a1 b1, and is
    multiplied by the column of a2."""

    def __init__(self, parts: Sequence[tuple[int, Hadamard]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        self.a1, self.b1, self.a2, self.b2 = (
            stacked([getattr(part, role) for _, part in parts]) for role in ("a1", "b1", "a2", "b2")
        )
        self.nbytes = size_of(self.a1, self.b1, self.a2, self.b2)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        count, inner, outer = len(self.entries), x.shape[-1], out.shape[-1]
        mine = self.entries.take(x, repeat).to(self.b1).reshape(count, -1, 1, inner)
        many = (mine * self.b2[:, None]).flatten(1, 2)  # (entries, tokens * r2, in)
        ranks = self.b2.shape[1], self.b1.shape[1]
        low = torch.bmm(many, self.b1.mT).view(count, -1, *ranks).mT
        wide = torch.bmm(low.reshape(count, -1, ranks[0]), self.a2.mT)
        delta = (wide.view(count, -1, ranks[1], outer) * self.a1.mT[:, None]).sum(2)
        return self.entries.add(out, delta.view(count, repeat, *out.shape[1:]), repeat)


def changes(site: SitePlan, roles: Roles) -> bool:
    """Whether the delta is anything but zero: no factor of it is."""
    return site.scale != 0 and all(bool(factor.any()) for factor in roles.values())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site, from placed tensors by role."""
    return LohaFactors(site, shape, roles)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """The delta that the live adapter makes."""
    if weight.dim() > 2:
        whole = LohaFactors(site, shape, roles).delta_weight()
        return lambda rows: whole[rows]
    a1, a2, b1, b2 = (roles[role] for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
    return lambda rows: (a1[rows] @ b1).mul_(a2[rows] @ b2).mul_(site.scale)


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: all as ``nn.Linear`` begins, and one zero (unless ``init_weights`` is
    false), so that the delta is."""
    zero = {"w2_b"} if new.config.get("init_weights", True) else set[str]()
    order = [role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2") if role in new.shapes]
    return {role: new.zeros(role) if role in zero else new.uniform(role) for role in order}


PARAMETERS: Mapping[str, str] = {
    role: f"hada_{role}.{{adapter}}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}
"""PEFT's live names of the roles, after the module's own."""


METHOD = Method(
    "LOHA",
    lycoris.unsupported,
    changes,
    build,
    PARAMETERS,
    delta_weight=delta_weight,
    unmergeable=lycoris.unmergeable,
    input_roles=frozenset(PARAMETERS),
    initial=initial,
)
