"""VeRA at a site (https://arxiv.org/abs/2310.11454): ``out + b * B(d * A(x))`` with vectors b and d
of the site and random matrices A and B that all sites share.

Follows PEFT 0.21, ``tuners/vera/layer.py`` and, for matrices that are not in the file,
``tuners/vera/model.py``: Kaiming-uniform numbers (https://arxiv.org/abs/1502.01852) of torch's CPU
generator, A's before B's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ..adapter.factors import Factors, RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked
from .deltas import Delta, Roles, product_rows
from .method import Method
from .new_site import NewSite


class VeraFactors:
    """At a linear module: b (out,), d (r,), A (r, in or more), B (out or more, r)."""

    __slots__ = ("a", "b", "dropout", "inner", "lambda_b", "lambda_d", "outer")

    def __init__(self, shape: ModuleShape, roles: Roles, dropout: float) -> None:
        self.lambda_b = roles["lambda_b"]
        self.lambda_d = roles["lambda_d"]
        self.a = roles["A"]
        self.b = roles["B"]
        self.inner = shape.in_features
        self.outer = shape.out_features
        self.dropout = dropout

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        d, b = self.lambda_d, self.lambda_b
        x = x.to(d)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        low = d * F.linear(x, self.a[:, : self.inner].to(d))
        delta = b * F.linear(low, self.b[: self.outer].to(d))
        return out + (delta * weight).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if self.dropout and module.training:
            return None
        d, b = self.lambda_d, self.lambda_b
        wide = torch.promote_types(d.dtype, b.dtype)
        a, outer = self.a[:, : self.inner].to(wide), self.b[: self.outer].to(wide)
        return (Projected(a, outer, d, b * weight),)


@dataclass(frozen=True, eq=False)
class Projected(RowPart):
    """``delta(x) = v * B (d * (A x))``: a (r, in), b (out, r), d (r,), and v (out,) with the
    weight in it."""

    a: Tensor
    b: Tensor
    d: Tensor
    v: Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Projected]], rows: int) -> RowDelta:
        return ProjectedRows(parts, rows)

    def same(self, other: Projected) -> bool:
        """Whether both have the same matrices; most VeRA adapters have those of one seed."""
        pairs = ((self.a, other.a), (self.b, other.b))
        return all(
            mine.dtype is theirs.dtype
            and mine.shape == theirs.shape
            and (mine.data_ptr() == theirs.data_ptr() or torch.equal(mine, theirs))
            for mine, theirs in pairs
        )


class ProjectedRows:
    """The vectors of each entry, d (entries, r) and v (entries, out), grouped by their matrices.
    The matrices are not copied because they are large: each group has its own products."""

    def __init__(self, parts: Sequence[tuple[int, Projected]], rows: int) -> None:
        groups: list[list[tuple[int, Projected]]] = []
        for row, part in parts:
            group = next((g for g in groups if g[0][1].same(part)), None)
            if group is None:
                groups.append(group := [])
            group.append((row, part))
        self.groups = [
            (Entries(g, rows), g[0][1], stacked([p.d for _, p in g]), stacked([p.v for _, p in g]))
            for g in groups
        ]
        self.nbytes = sum(size_of(d, v) for _, _, d, v in self.groups)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        for entries, shared, d, v in self.groups:
            mine = entries.take(x, repeat).to(d)
            low = F.linear(mine, shared.a) * _along(d, mine)
            delta = F.linear(low, shared.b) * _along(v, mine)
            out = entries.add(out, delta, repeat)
        return out


def _along(vectors: Tensor, x: Tensor) -> Tensor:
    """(entries, n) in the shape of (entries, ..., n) with the dimensions of ``x``."""
    return vectors.view(len(vectors), *(1,) * (x.dim() - 2), -1)


def changes(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """Whether neither vector is zero."""
    return bool(roles["lambda_b"].any()) and bool(roles["lambda_d"].any())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site."""
    return VeraFactors(shape, roles, dropout)


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: b is zero and d is ``d_initial``; with ``init_weights: false`` b is
    one and d normal numbers."""
    d = new.normal("lambda_d")
    if not new.config.get("init_weights", True):
        return {"lambda_b": torch.ones(new.shapes["lambda_b"]), "lambda_d": d}
    first = float(new.config.get("d_initial", 0.1))
    return {"lambda_b": new.zeros("lambda_b"), "lambda_d": torch.full_like(d, first)}


def shared(sites: Iterable[tuple[SitePlan, ModuleShape]]) -> Roles:
    """The matrices that the file does not have, in float32, as PEFT makes them: the same on every
    machine whose torch draws the same numbers on the CPU."""
    wanted = [(site, shape) for site, shape in sites if "A" not in site.tensors]
    if not wanted:
        return {}
    rank, seed = wanted[0][0].rank, wanted[0][0].settings["seed"]
    inner = max(shape.in_features or 0 for _, shape in wanted)
    outer = max(shape.out_features or 0 for _, shape in wanted)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.inference_mode(False):
        return {
            role: nn.init.kaiming_uniform_(
                torch.empty(size, dtype=torch.float32, device="cpu"), generator=generator
            )
            for role, size in {"A": (rank, inner), "B": (outer, rank)}.items()
        }


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``diag(b) B diag(d) A``, with A and B cut to this module's sizes."""
    a = roles["lambda_d"][:, None] * roles["A"][:, : shape.in_features]
    b = roles["lambda_b"][:, None] * roles["B"][: shape.out_features]
    return product_rows(b, a, 1.0, shape.kind is ModuleKind.CONV1D)


SHARED = {"A": "base_model.vera_A.{adapter}", "B": "base_model.vera_B.{adapter}"}

METHOD = Method(
    "VERA",
    build,
    changes=changes,
    shared=SHARED,
    make_shared=shared,
    delta_weight=delta_weight,
    input_roles=frozenset({"lambda_b", "lambda_d", *SHARED}),
    initial=initial,
)
