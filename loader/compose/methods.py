"""The ways of combining, one row each, by PEFT's names; and what they do at one module.

A method works *on* one of three things: the ``factors`` (A with A and B with B, which gives PEFT's
cross terms), the ``ranks`` (factors side by side: exact), or the written-out ``delta`` (then an
SVD). It may ``prune`` each member before, and ``elect`` signs where it sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from .dense import dense
from .pairs import Pair, Place
from .sparsify import keep_largest, keep_masked, random_mask
from .svd import nearest, nearest_to_sum
from .ties import elected_mean, weighted_sum


@dataclass(frozen=True)
class Method:
    """See the module."""

    on: Literal["factors", "ranks", "delta"]
    prune: Literal["largest", "random"] | None = None
    elect: bool = False


METHODS: Mapping[str, Method] = {
    "sum": Method("ranks"),
    "cat": Method("ranks"),
    "linear": Method("factors"),
    "ties": Method("factors", "largest", elect=True),
    "dare_linear": Method("factors", "random"),
    "dare_ties": Method("factors", "random", elect=True),
    "magnitude_prune": Method("factors", "largest"),
    "svd": Method("delta"),
    "ties_svd": Method("delta", "largest", elect=True),
    "dare_linear_svd": Method("delta", "random"),
    "dare_ties_svd": Method("delta", "random", elect=True),
    "magnitude_prune_svd": Method("delta", "largest"),
}


@dataclass(frozen=True)
class Settings:
    """A recipe's options. ``rank`` is the rank wanted of an SVD, ``seed`` is for random pruning."""

    density: float = 1.0
    sign_method: str = "total"
    seed: int = 0
    rank: int | None = None
    clamp: float | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """One member at one module: its pair, its weight there, its adapter's digest."""

    pair: Pair
    weight: float
    digest: str


def combine(method: Method, settings: Settings, place: Place, parts: Sequence[Part]) -> Pair:
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
    method: Method,
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
    method: Method, settings: Settings, name: str, task: torch.Tensor, digest: str
) -> torch.Tensor:
    density = settings.density
    if method.prune is None or density >= 1:
        return task
    if method.prune == "largest":
        return keep_largest(task, density)
    mask = random_mask(task.numel(), density, settings.seed, digest, name)
    return keep_masked(task, mask, density)


def _on_factors(method: Method, settings: Settings, place: Place, parts: Sequence[Part]) -> Pair:
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


def _on_ranks(method: Method, settings: Settings, place: Place, parts: Sequence[Part]) -> Pair:
    """Side by side: the exact sum, of all the ranks together."""
    scaled = [p.pair.a * p.weight * p.pair.scale for p in parts]
    return Pair(torch.cat(scaled, dim=1), torch.cat([p.pair.b for p in parts], dim=2))


def _on_delta(method: Method, settings: Settings, place: Place, parts: Sequence[Part]) -> Pair:
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
