"""What an adapter adds to a weight, some rows at a time.

Rows are those of the stored weight's first dimension; of a parameter of experts (experts, out, in)
those of all experts, one after the other: (experts * out, in). So a delta is never as large as the
weight, and each tensor of a checkpoint in which every expert stands alone has its own part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

Roles = Mapping[str, Tensor]
Delta = Callable[[slice], Tensor]
"""The delta of these rows, in the shape of these rows of the weight, in the roles' dtype and on
their device."""


def product_rows(b: Tensor, a: Tensor, scale: float, transposed: bool) -> Delta:
    """``scale * b @ a`` of b (out, r) and a (r, in), or its transpose."""
    left, right = (a.t(), b.t()) if transposed else (b, a)
    return lambda rows: (left[rows] @ right).mul_(scale)


def sees_zeros(module: nn.Module) -> str | None:
    """Why a delta that is computed beside a convolution is none of its weight: beyond the edge it
    sees zeros, and the base something else."""
    mode = cast(str, getattr(module, "padding_mode", "zeros"))
    if mode != "zeros":
        return f"the delta sees zeros beyond the edge, the base {mode} padding"
    return None
