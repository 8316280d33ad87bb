"""Convolutions: torch's by the number of dimensions, and those of a batch whose rows have kernels
of their own, which are groups of one convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapter.factors import RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked

CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {
    3: F.conv1d,
    4: F.conv2d,
    5: F.conv3d,
}
"""By the number of dimensions of their weights."""


@dataclass(frozen=True, eq=False)
class LowRankKernel(RowPart):
    """``delta(x) = b * (a * x)``: a (r, in, *kernel), with the module's stride and padding, and b
    (out, r / groups, 1, ..), with its groups; scale and weight in b."""

    a: Tensor
    b: Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, LowRankKernel]], rows: int) -> RowDelta:
        return LowRankKernelRows(parts, rows)


class LowRankKernelRows:
    """``a`` (entries, groups, r / groups, in, *kernel) and ``b`` (entries, groups, out / groups,
    r / groups), zero where an entry has less than the largest rank."""

    def __init__(self, parts: Sequence[tuple[int, LowRankKernel]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        # of b's second dimension there are as many ranks as in one group
        cut = [(p.a.shape[0] // p.b.shape[1], p) for _, p in parts]
        self.a = stacked([p.a.reshape(groups, -1, *p.a.shape[1:]) for groups, p in cut])
        self.b = stacked([p.b.reshape(groups, -1, p.b.shape[1]) for groups, p in cut])
        wide = torch.promote_types(self.a.dtype, self.b.dtype)
        self.a, self.b = self.a.to(wide), self.b.to(wide)
        self.nbytes = size_of(self.a, self.b)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        conv = cast(nn.Conv2d, module)
        mine = self.entries.take(x, repeat).to(self.a)
        low = by_entry(mine, self.a.flatten(1, 2), conv.stride, conv.padding)
        flat = low.reshape(len(self.a), repeat, *self.b.shape[1:4:2], -1)
        delta = (self.b[:, None] @ flat).reshape(*low.shape[:2], -1, *low.shape[3:])
        return self.entries.add(out, delta, repeat)


@dataclass(frozen=True, eq=False)
class Kernel(RowPart):
    """``delta(x)``: the module's own convolution with the kernel (out, in / groups, *kernel), the
    weight in it."""

    kernel: Tensor

    @property
    def kind(self) -> Hashable:
        return (type(self), self.kernel.shape)

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Kernel]], rows: int) -> RowDelta:
        return KernelRows(parts, rows)


class KernelRows:
    """``kernels`` (entries, out, in / groups, *kernel)."""

    def __init__(self, parts: Sequence[tuple[int, Kernel]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        self.kernels = stacked([part.kernel for _, part in parts])
        self.nbytes = size_of(self.kernels)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        conv = cast(nn.Conv2d, module)
        mine = self.entries.take(x, repeat).to(self.kernels)
        delta = by_entry(mine, self.kernels, conv.stride, conv.padding, conv.dilation)
        return self.entries.add(out, delta, repeat)


def by_entry(x: Tensor, kernels: Tensor, *how: Any) -> Tensor:
    """Each entry of ``x`` (entries, repeat, in, *size) with its own kernel (entries, out,
    in / groups, *kernel): (entries, repeat, out, *size). ``how`` is stride, padding, dilation."""
    entries, repeat, channels, *size = x.shape
    groups = channels // kernels.shape[2]
    stride, padding, dilation = (*how, 1)[:3]
    together = x.transpose(0, 1).reshape(repeat, entries * channels, *size)
    convolve = CONVOLUTIONS[kernels.dim() - 1]
    found = convolve(
        together, kernels.flatten(0, 1), None, stride, padding, dilation, entries * groups
    )
    return found.view(repeat, entries, -1, *found.shape[2:]).transpose(0, 1)
