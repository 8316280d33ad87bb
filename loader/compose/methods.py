"""The arithmetic of each way of combining (``manifests.language.combine_methods``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...manifests.language.combine_methods import COMBINE_METHODS
from ...manifests.language.schema import Composition
from .pairs import Pair, PairPlace
from .sparsify import keep_largest, keep_masked, random_mask
from .svd import nearest, nearest_to_sum
from .ties import elected_mean, weighted_sum


class Contribution(NamedTuple):
    """One member at one module: its pair, its weight there, its adapter's digest."""

    pair: Pair
    weight: float
    digest: str


def combine(recipe: Composition, place: PairPlace, parts: Sequence[Contribution]) -> Pair:
    """The pair (scale 1) that combines ``parts`` at ``place``. Pure; float32 on the CPU.

    Under ``factors`` all pairs must have one rank. Biases of the factors are combined as the
    vectors that they add.
    """
    found = _COMBINE[COMBINE_METHODS[recipe.combine].on](recipe, place, parts)
    biases = [
        Term(p.pair.bias * p.pair.scale, p.weight, p.digest)
        for p in parts
        if p.pair.bias is not None
    ]
    name = f"{place.names[1].removesuffix('.weight')}.bias"
    return Pair(found.a, found.b, 1.0, merge(recipe, name, biases) if biases else None)


class Term(NamedTuple):
    """One member's tensor with its weight, and the digest of its adapter."""

    tensor: torch.Tensor
    weight: float
    digest: str


def merge(recipe: Composition, name: str, terms: Sequence[Term]) -> torch.Tensor:
    """Tensors of one shape, pruned and summed as the recipe says. ``name`` is the tensor's; with a
    member's digest it keys the random masks."""
    pruned = torch.stack([_pruned(recipe, name, term) for term in terms])
    weights = torch.tensor([term.weight for term in terms], dtype=torch.float32)
    if COMBINE_METHODS[recipe.combine].elect:
        return elected_mean(pruned, weights, recipe.majority_sign_method or "total")
    return weighted_sum(pruned, weights)


def _pruned(recipe: Composition, name: str, term: Term) -> torch.Tensor:
    prune, density = COMBINE_METHODS[recipe.combine].prune, recipe.density
    if prune is None or density is None or density >= 1:
        return term.tensor
    if prune == "largest":
        return keep_largest(term.tensor, density)
    mask = random_mask(term.tensor.numel(), density, recipe.seed or 0, term.digest, name)
    return keep_masked(term.tensor, mask, density)


def _on_factors(recipe: Composition, place: PairPlace, parts: Sequence[Contribution]) -> Pair:
    """A with A, B with B. Each has the root of the weight, only A its sign: two signs would
    cancel out."""
    a: list[Term] = []
    b: list[Term] = []
    for pair, weight, digest in parts:
        root = math.sqrt(abs(weight * pair.scale))
        a.append(Term(pair.a, math.copysign(root, weight * pair.scale), digest))
        b.append(Term(pair.b, root, digest))
    name_a, name_b = place.names
    return Pair(merge(recipe, name_a, a), merge(recipe, name_b, b))


def _on_ranks(recipe: Composition, place: PairPlace, parts: Sequence[Contribution]) -> Pair:
    """Side by side: the exact sum, of all the ranks together."""
    scaled = [p.pair.a * p.weight * p.pair.scale for p in parts]
    return Pair(torch.cat(scaled, dim=1), torch.cat([p.pair.b for p in parts], dim=2))


def _on_delta(recipe: Composition, place: PairPlace, parts: Sequence[Contribution]) -> Pair:
    """The nearest pair of the recipe's rank to the combined delta."""
    rank = recipe.svd_rank or max(p.pair.rank for p in parts)
    if COMBINE_METHODS[recipe.combine].prune is None and recipe.svd_clamp is None:
        return nearest_to_sum([p.pair for p in parts], [p.weight for p in parts], rank)
    deltas = [Term(p.pair.delta(), p.weight, p.digest) for p in parts]
    return nearest(merge(recipe, f"{place.module}.weight", deltas), rank, recipe.svd_clamp)


_COMBINE = {"factors": _on_factors, "ranks": _on_ranks, "delta": _on_delta}
