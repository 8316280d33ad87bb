"""The pair of factors of a rank that is nearest to a delta (Eckart and Young), by SVD.

torch's SVD is LAPACK's: the same on the same machine with the same number of threads, and within
rounding elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .pairs import Pair


def nearest(delta: torch.Tensor, rank: int, clamp: float | None = None) -> Pair:
    """The best pair of ``rank`` for ``delta`` (groups, out / groups, in * kernel).

    ``rank`` is divided among the groups, upwards, and is never larger than the delta's own. The
    singular values are in B, as in PEFT. ``clamp`` (PEFT's ``svd_clamp``) bounds the entries of
    both factors by that quantile of all of them.
    """
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    return _cut(u, s, vh, rank, clamp)


def nearest_to_sum(pairs: Sequence[Pair], weights: Sequence[float], rank: int) -> Pair:
    """The same for the weighted sum of ``pairs``, which is never computed: the SVD is that of a
    square as wide as their total rank. Up to rounding it is :func:`nearest` of the sum."""
    a = torch.cat([p.a for p in pairs], dim=1)
    b = torch.cat([p.b * (w * p.scale) for p, w in zip(pairs, weights, strict=True)], dim=2)
    if a.shape[1] >= min(a.shape[2], b.shape[1]):
        return nearest(b @ a, rank)
    left, over = torch.linalg.qr(b)
    right, under = torch.linalg.qr(a.transpose(1, 2))
    u, s, vh = torch.linalg.svd(over @ under.transpose(1, 2), full_matrices=False)
    return _cut(left @ u, s, vh @ right.transpose(1, 2), rank, None)


def _cut(
    u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor, rank: int, clamp: float | None
) -> Pair:
    kept = min(math.ceil(rank / s.shape[0]), s.shape[1])
    b, a = u[..., :kept] * s[:, None, :kept], vh[:, :kept]
    if clamp is not None:
        high = _quantile(torch.cat([b.flatten(), a.flatten()]), clamp)
        b, a = b.clamp(-high, high), a.clamp(-high, high)
    return Pair(a, b)


def _quantile(values: torch.Tensor, q: float) -> float:
    """``torch.quantile``, for any number of values (its own is 16 million)."""
    ordered = values.sort().values
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], at - low).item()
