"""Trained biases of the base (``bias: all`` and ``lora_only``), as a difference on the output.

PEFT writes such biases into the base: all adapters share them, and disabling does not restore the
old ones. Here each adapter has its own, and the base keeps its biases.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from ..adapter.factors import BiasChange
from ..routing.low_rank import Scaling
from ..weights.placement import offloaded
from .weight_reads import Read
from .weight_sites import can_stand_in


class BiasFactors(BiasChange):
    """``out + weight * (bias - the base's bias)``, along the module's channels. If the module is
    not ``called``, code that reads the bias gets the changed one."""

    __slots__ = ("reads",)

    def __init__(self, value: torch.Tensor, old: torch.Tensor, called: bool = True) -> None:
        super().__init__(value, old)
        self.reads: Mapping[str, Read] = {} if called else {"bias": self._read}

    def _read(self, own: torch.Tensor, now: torch.Tensor, weight: float) -> torch.Tensor:
        return now + self.difference(weight).to(now.device)

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        delta = self.difference(weight).to(out.device)
        return out + delta.view(*delta.shape, *(1,) * _dimensions_after_channels(module, out))

    def parts(self, module: nn.Module, weight: float) -> tuple[Scaling]:
        shift = self.difference(weight)
        last = not isinstance(module, (_ConvNd, nn.GroupNorm, _BatchNorm))
        return (Scaling(shift=shift, channels_last=last),)


class BiasWeight(BiasChange):
    """The same for a module that does more with its bias than add it last: it runs with another
    bias during a call."""

    __slots__ = ()
    name = "bias"

    def add_to(self, module: nn.Module, parameter: torch.Tensor, weight: float) -> torch.Tensor:
        return parameter + self.difference(weight).to(parameter.device)


def inner_bias_of(module: nn.Module) -> torch.Tensor | None:
    """The bias that a module of another kind can exchange during a call; ``None`` where it has no
    such bias."""
    own = module._parameters.get("bias")  # pyright: ignore[reportPrivateUsage]
    plain = own is not None and type(own.data) is torch.Tensor and own.is_floating_point()
    return offloaded(module, "bias") if plain and can_stand_in(module) else None


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The base's bias, if the module adds it last; else ``None``."""
    known = (nn.Linear, nn.LayerNorm, nn.GroupNorm, _BatchNorm, _ConvNd)
    kind = type(module)
    hugging_face = (kind.__name__, kind.__module__) == ("Conv1D", "transformers.pytorch_utils")
    return offloaded(module, "bias") if hugging_face or isinstance(module, known) else None


def _dimensions_after_channels(module: nn.Module, out: torch.Tensor) -> int:
    if isinstance(module, _ConvNd):
        return len(module.kernel_size)
    return out.dim() - 2 if isinstance(module, (nn.GroupNorm, _BatchNorm)) else 0
