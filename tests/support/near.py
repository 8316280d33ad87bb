"""When two answers are the same, and when they differ, in units of what rounding can do.

A tolerance is never a plain number: it is a multiple of the coarser dtype's rounding step at the
magnitude of the values compared, or a multiple of how far a peer is from the answer in float64.
Both hold on any CPU, with any number of threads and any build of torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

ROUNDINGS = 128
"""Rounding steps at the largest magnitude that a forward of a few small layers may be off by: sums
of some hundred products in another order, through normalisations. 1.5e-5 in float32."""

HALVES = 6
"""The same for a forward of two layers whose sums are rounded to bfloat16 on the way."""

MATTERS = 1e-3
"""The share of the largest magnitude by which answers differ that are not the same."""

TIMES_A_PEER = 8
"""How often a peer's own distance from the exact answer counts: two float32 results of an
ill-conditioned step (an SVD with near singular values) differ from it by chance."""


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, as a share of the largest magnitude; infinite where shapes differ or
    anything is not finite."""
    if found.shape != wanted.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    left, right = found.detach().double(), wanted.detach().double()
    if not bool(torch.isfinite(left).all() & torch.isfinite(right).all()):
        return 0.0 if torch.equal(found, wanted) else float("inf")
    largest = max(float(left.abs().max()), float(right.abs().max()))
    return float((left - right).abs().max()) / largest if largest else 0.0


def step(*dtypes: torch.dtype) -> float:
    """The rounding step of the coarsest of these dtypes, at magnitude one; an integer's is that of
    values scaled onto its range."""
    return max(
        torch.finfo(dtype).eps if dtype.is_floating_point else 1 / torch.iinfo(dtype).max
        for dtype in dtypes
    )


def close(
    found: torch.Tensor,
    wanted: torch.Tensor,
    roundings: float = ROUNDINGS,
    computed_in: torch.dtype | None = None,
) -> bool:
    """Whether two answers are the same but for rounding: in the coarsest of their dtypes and of
    ``computed_in``, where values on the way were in that."""
    dtypes = [found.dtype, wanted.dtype, *([computed_in] if computed_in else [])]
    return distance(found, wanted) <= roundings * step(*dtypes)


def same_losses(found: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether two trainings of a few steps had the same losses, computed in float32."""
    return close(torch.tensor(found), torch.tensor(wanted))


def differs(found: torch.Tensor, wanted: torch.Tensor, share: float = MATTERS) -> bool:
    """Whether two answers are not the same by much more than rounding."""
    return distance(found, wanted) > share


def as_near_as(
    found: torch.Tensor, peer: torch.Tensor, exact: torch.Tensor, times: float = TIMES_A_PEER
) -> bool:
    """Whether ``found`` is as near to the answer in float64 as a peer's result in the same dtype,
    within ``times``; where the peer is exact by luck, the rounding of a small forward counts."""
    assert exact.dtype == torch.float64
    allowed = max(distance(peer, exact), ROUNDINGS / TIMES_A_PEER * step(found.dtype, peer.dtype))
    return distance(found, exact) <= times * allowed
