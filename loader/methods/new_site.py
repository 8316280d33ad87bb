"""A module for which a new adapter is created, and how its first values are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...registry.files.facts import ModuleShape, SitePlan
from ..weights.placement import offloaded


@dataclass(frozen=True)
class NewSite:
    """The input of a method's ``initial``: the planned site, the live module with its sizes, the
    shape of each role's tensor, and the config.

    Values are float32 on the CPU. They are drawn from ``generator`` (``None``: torch's own) in
    PEFT's order, those included that PEFT draws and overwrites, so that one seed gives the same
    adapter in both.
    """

    site: SitePlan
    module: nn.Module
    sizes: ModuleShape
    shapes: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any]
    generator: torch.Generator | None = None

    def uniform(self, role: str) -> Tensor:
        """Within 1 / sqrt(fan-in), as ``nn.Linear`` initialises its weight."""
        return initial_linear(torch.empty(self.shapes[role]), self.generator)

    def uniform_within(self, role: str, bound: float) -> Tensor:
        return torch.empty(self.shapes[role]).uniform_(-bound, bound, generator=self.generator)

    def normal(self, role: str, deviation: float = 1.0) -> Tensor:
        empty = torch.empty(self.shapes[role])
        return empty.normal_(std=deviation, generator=self.generator)

    def zeros(self, role: str) -> Tensor:
        return torch.zeros(self.shapes[role])

    def weight(self) -> Tensor:
        """The module's weight, offloaded or not. Raises :class:`AttachError` where it cannot be
        read."""
        found = offloaded(self.module, "weight")
        if found is None or found.is_meta:
            message = f"Cannot read the weight of {self.site.module}"
            raise AttachError(codes.MODULE_ON_META.finding(message))
        return found.detach()


def initial_linear(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """``weight`` (out, in, ..) filled as torch fills the weight of a linear module or a convolution
    (https://arxiv.org/abs/1502.01852, with a = sqrt(5))."""
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
