"""Trained biases of the base (``bias: all`` and ``lora_only``), as a difference on the output.

PEFT writes such biases into the base, where every adapter shares them and disabling does not
bring the old ones back. Here each adapter has its own, and the base keeps its.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from .low_rank import Scaling
from .placement import offloaded
from .weight_reads import Read


class BiasFactors:
    """``out + weight * (bias - the base's bias)``, along the module's channels. Of a module that is
    not ``called`` who reads the bias finds it changed."""

    __slots__ = ("old", "reads", "value")

    def __init__(self, value: torch.Tensor, old: torch.Tensor, *, called: bool = True) -> None:
        self.value = value
        self.old = old.detach()
        self.reads: Mapping[str, Read] = {} if called else {"bias": self._read}

    def _read(self, own: torch.Tensor, now: torch.Tensor, weight: float) -> torch.Tensor:
        delta = (self.value - self.old.to(self.value.device)) * weight
        return now + delta.to(now.device)

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        delta = ((self.value - self.old.to(self.value.device)) * weight).to(out.device)
        return out + delta.view(*delta.shape, *(1,) * _dimensions_after_channels(module, out))

    def parts(self, module: nn.Module, weight: float) -> tuple[Scaling]:
        shift = (self.value - self.old.to(self.value.device)) * weight
        last = not isinstance(module, (_ConvNd, nn.GroupNorm, _BatchNorm))
        return (Scaling(shift=shift, channels_last=last),)


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The base's bias, where it is the last thing that the module adds; else ``None``."""
    known = (nn.Linear, nn.LayerNorm, nn.GroupNorm, _BatchNorm, _ConvNd)
    kind = type(module)
    hugging_face = (kind.__name__, kind.__module__) == ("Conv1D", "transformers.pytorch_utils")
    return offloaded(module, "bias") if hugging_face or isinstance(module, known) else None


def _dimensions_after_channels(module: nn.Module, out: torch.Tensor) -> int:
    if isinstance(module, _ConvNd):
        return len(module.kernel_size)
    return out.dim() - 2 if isinstance(module, (nn.GroupNorm, _BatchNorm)) else 0
