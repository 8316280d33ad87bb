"""Trained biases of the base (``bias: all`` and ``lora_only``), as a difference on the output.

PEFT writes such biases into the base, where every adapter shares them and disabling does not
bring the old ones back. Here each adapter has its own, and the base keeps its.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from .placement import offloaded

_CHANNELS_SECOND = (_ConvNd, _BatchNorm, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


class BiasFactors:
    """``out + weight * (bias - the base's bias)``, along the module's channels."""

    __slots__ = ("old", "second", "value")

    def __init__(self, module: nn.Module, value: torch.Tensor, old: torch.Tensor) -> None:
        self.value = value
        self.old = old.detach()
        self.second = isinstance(module, _CHANNELS_SECOND)

    def add(
        self, module: nn.Module, x: torch.Tensor, out: torch.Tensor, weight: float
    ) -> torch.Tensor:
        delta = (self.value - self.old.to(self.value.device)) * weight
        if self.second:
            delta = delta.view(-1, *(1,) * (out.dim() - 2))
        return out + delta


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The base's bias, where it is the last thing that the module adds; else ``None``."""
    linear_like = isinstance(module, (*_CHANNELS_SECOND, *_CHANNELS_LAST)) or (
        type(module).__name__ == "Conv1D"
        and type(module).__module__ == "transformers.pytorch_utils"
    )
    return offloaded(module, "bias") if linear_like else None
