"""What the ways of combining (``manifests.language.combine_methods``) do at one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...manifests.language.combine_methods import CombineMethod
from .dense import dense
from .pairs import Pair, PairPlace
from .sparsify import keep_largest, keep_masked, random_mask
from .svd import nearest, nearest_to_sum
from .ties import elected_mean, weighted_sum


@dataclass(frozen=True)
class Settings:
    """A recipe's options. ``rank`` is the rank wanted of an SVD, ``seed`` is for random pruning."""

    density: float = 1.0
    sign_method: str = "total"
    seed: int = 0
    rank: int | None = None
    clamp: float | None = None


@dataclass(frozen=True, eq=False)
class Contribution:
    """One member at one module: its pair, its weight there, its adapter's digest."""

    pair: Pair
    weight: float
    digest: str


def combine(
    method: CombineMethod, settings: Settings, place: PairPlace, parts: Sequence[Contribution]
) -> Pair:
    """The pair (scale 1) that stands for ``parts`` at ``place``. Pure; float32 on the CPU.

    Under ``factors`` all pairs must have one rank. Biases of the factors are combined as the
    vectors that they add.
    """
    found = _COMBINE[method.on](method, settings, place, parts)
    biased = [p for p in parts if p.pair.bias is not None]
    bias = None
    if biased:
        vectors = [p.pair.bias * p.pair.scale for p in biased if p.pair.bias is not None]
        name = f"{place.names[1].removesuffix('.weight')}.bias"
        digests = [p.digest for p in biased]
        bias = merge(method, settings, name, vectors, digests, [p.weight for p in biased])
    return Pair(found.a, found.b, 1.0, bias)


def merge(
    method: CombineMethod,
    settings: Settings,
    name: str,
    tasks: Sequence[torch.Tensor],
    digests: Sequence[str],
    weights: Sequence[float],
) -> torch.Tensor:
    """Tensors of one shape, one a member, pruned and summed as the method says. ``name`` is what
    they are called; with a member's digest it keys the random masks."""
    pruned = [
        _pruned(method, settings, name, task, digest)
        for task, digest in zip(tasks, digests, strict=True)
    ]
    stacked, scales = torch.stack(pruned), torch.tensor(weights, dtype=torch.float32)
    if method.elect:
        return elected_mean(stacked, scales, settings.sign_method)
    return weighted_sum(stacked, scales)


def _pruned(
    method: CombineMethod, settings: Settings, name: str, task: torch.Tensor, digest: str
) -> torch.Tensor:
    density = settings.density
    if method.prune is None or density >= 1:
        return task
    if method.prune == "largest":
        return keep_largest(task, density)
    mask = random_mask(task.numel(), density, settings.seed, digest, name)
    return keep_masked(task, mask, density)


def _on_factors(
    method: CombineMethod, settings: Settings, place: PairPlace, parts: Sequence[Contribution]
) -> Pair:
    """A with A, B with B. Each side has the root of the weight, its sign only A: else the two
    would make a plus of it."""
    whole = [p.weight * p.pair.scale for p in parts]
    roots = [math.sqrt(abs(w)) for w in whole]
    signed = [math.copysign(root, w) for root, w in zip(roots, whole, strict=True)]
    name_a, name_b = place.names
    digests = [p.digest for p in parts]
    return Pair(
        merge(method, settings, name_a, [p.pair.a for p in parts], digests, signed),
        merge(method, settings, name_b, [p.pair.b for p in parts], digests, roots),
    )


def _on_ranks(
    method: CombineMethod, settings: Settings, place: PairPlace, parts: Sequence[Contribution]
) -> Pair:
    """Side by side: the exact sum, of all the ranks together."""
    scaled = [p.pair.a * p.weight * p.pair.scale for p in parts]
    return Pair(torch.cat(scaled, dim=1), torch.cat([p.pair.b for p in parts], dim=2))


def _on_delta(
    method: CombineMethod, settings: Settings, place: PairPlace, parts: Sequence[Contribution]
) -> Pair:
    """The nearest pair of a rank to the combined delta."""
    pairs, weights = [p.pair for p in parts], [p.weight for p in parts]
    rank = settings.rank or max(pair.rank for pair in pairs)
    if method.prune is None and settings.clamp is None:
        return nearest_to_sum(pairs, weights, rank)
    deltas = [dense(pair) for pair in pairs]
    name = f"{place.module}.weight"
    digests = [p.digest for p in parts]
    return nearest(merge(method, settings, name, deltas, digests, weights), rank, settings.clamp)


_COMBINE = {"factors": _on_factors, "ranks": _on_ranks, "delta": _on_delta}
