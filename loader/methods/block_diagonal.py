"""BD-LoRA at a linear module: one of two factors is block-diagonal, and its blocks are kept.

Follows PEFT 0.21.2, ``tuners/lora/variants.py`` (``BlockDiagonalLinear``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..adapter.factors import RowPart
from .linear import LinearFactors


class BlockFactors:
    """``cut`` is the number of a factor's blocks, by role; only the blocks are trained."""

    __slots__ = ("blocks", "cut")

    def __init__(self, blocks: LinearFactors, cut: Mapping[str, int]) -> None:
        self.blocks = blocks
        self.cut = dict(cut)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        return self._in_full().add(module, x, base, out, weight)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        return self._in_full().parts(module, weight)

    def _in_full(self) -> LinearFactors:
        blocks = self.blocks
        roles = {
            "A": in_full(blocks.a, self.cut.get("A", 1)),
            "B": in_full(blocks.b, self.cut.get("B", 1)),
        }
        if blocks.bias is not None:
            roles["B_bias"] = blocks.bias
        return LinearFactors(roles, blocks.scale, blocks.dropout)


def in_full(blocks: Tensor, number: int) -> Tensor:
    """The blocks (number * rows, columns) on a diagonal: (number * rows, number * columns)."""
    return blocks if number == 1 else torch.block_diag(*blocks.chunk(number))
