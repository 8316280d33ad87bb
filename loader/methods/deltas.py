"""What an adapter adds to a weight, some rows at a time.

Rows are those of the stored weight's first dimension. A parameter of experts (experts, out, in) has
the rows of all experts, one expert after the other: (experts * out, in). So a delta is never as
large as the weight, and a checkpoint that stores each expert separately gets each one's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan

Roles = Mapping[str, Tensor]
Delta = Callable[[slice], Tensor]
"""The delta of these rows, in the shape of these rows of the weight, in the roles' dtype and on
their device."""


def product_rows(b: Tensor, a: Tensor, scale: float, transposed: bool) -> Delta:
    """``scale * b @ a`` of b (out, r) and a (r, in), or its transpose."""
    left, right = (a.t(), b.t()) if transposed else (b, a)
    return lambda rows: (left[rows] @ right).mul_(scale)


def pads_differently(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the delta of a convolution cannot be merged: it pads with zeros, the base does not."""
    mode = cast(str, getattr(module, "padding_mode", "zeros"))
    return None if mode == "zeros" else f"the delta pads with zeros, the base with {mode} padding"
