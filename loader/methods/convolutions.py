"""Convolutions: torch's by the number of dimensions, and batches whose rows have kernels of their
own, which run as the groups of one convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from .stacked_part import StackedPart, Taken

CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {
    3: F.conv1d,
    4: F.conv2d,
    5: F.conv3d,
}
"""By the number of dimensions of their weights."""


@dataclass(frozen=True, eq=False)
class LowRankKernel(StackedPart):
    """``delta(x) = b * (a * x)``: a (groups, r / groups, in, *kernel) with the module's stride and
    padding, and b (groups, out / groups, r / groups) with its groups; scale and weight in b."""

    a: Tensor
    b: Tensor

    @classmethod
    def from_factors(cls, a: Tensor, b: Tensor) -> LowRankKernel:
        """From the factors a (r, in, *kernel) and b (out, r / groups, 1, ..)."""
        groups = a.shape[0] // b.shape[1]
        return cls(a.reshape(groups, -1, *a.shape[1:]), b.reshape(groups, -1, b.shape[1]))

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        conv = cast(nn.Conv2d, module)
        kernels = self.a.flatten(1, 2)
        low = by_entry(taken.x.to(self.a), kernels, conv.stride, conv.padding)
        flat = low.reshape(*low.shape[:2], *self.b.shape[1:4:2], -1)
        return (self.b[:, None] @ flat).reshape(*low.shape[:2], -1, *low.shape[3:])


@dataclass(frozen=True, eq=False)
class Kernel(StackedPart):
    """``delta(x)``: the module's own convolution with the kernel (out, in / groups, *kernel), the
    weight in it."""

    kernel: Tensor

    @property
    def kind(self) -> Hashable:
        return (type(self), self.kernel.shape)

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        conv, mine = cast(nn.Conv2d, module), taken.x.to(self.kernel)
        return by_entry(mine, self.kernel, conv.stride, conv.padding, conv.dilation)


def by_entry(x: Tensor, kernels: Tensor, stride: Any, padding: Any, dilation: Any = 1) -> Tensor:
    """Each entry of ``x`` (entries, repeat, in, *size) with its own kernel (entries, out,
    in / groups, *kernel): (entries, repeat, out, *size)."""
    entries, repeat, channels, *size = x.shape
    groups = channels // kernels.shape[2]
    together = x.transpose(0, 1).reshape(repeat, entries * channels, *size)
    convolve = CONVOLUTIONS[kernels.dim() - 1]
    found = convolve(
        together, kernels.flatten(0, 1), None, stride, padding, dilation, entries * groups
    )
    return found.view(repeat, entries, -1, *found.shape[2:]).transpose(0, 1)
