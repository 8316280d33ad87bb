"""IA3 at a site (https://arxiv.org/abs/2205.05638): ``l * module(x)`` or ``module(l * x)``.

Follows PEFT 0.21, ``tuners/ia3/layer.py``: the vector rescales the whole output, bias included;
at a feedforward module the input, which is then cast back to its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...registry.files.conversion import Shape
from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ..adapter.factors import Factors, RowPart
from ..routing.low_rank import Scaling
from .deltas import Delta, Roles
from .method import Method
from .new_site import NewSite
from .rerun import ChangedInput, ChangedOutput, OtherInput, not_rerunnable


class _Rescaling:
    __slots__ = ("_shape", "l")

    def __init__(self, vector: Tensor, shape: Shape) -> None:
        self.l = vector
        self._shape = shape

    def changed(self, x: Tensor) -> Tensor:
        """``x`` rescaled along its channels, in the wider dtype of both."""
        return x.to(self.l.device) * self.l.view(self._shape)


class OutputFactors(_Rescaling, ChangedOutput):
    """Rescales what the module returns."""

    __slots__ = ()

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        wide = self.l.flatten().to(torch.promote_types(self.l.dtype, torch.float32))
        return (Scaling((wide - 1) * weight, channels_last=len(self._shape) == 1),)


class InputFactors(_Rescaling, ChangedInput):
    """Rescales what a feedforward module receives."""

    __slots__ = ()

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (RescaledInput(weight, self.l.view(self._shape)),)


@dataclass(frozen=True, eq=False)
class RescaledInput(OtherInput):
    """The input along its channels, times ``vector`` (channels, 1, ..)."""

    vector: Tensor

    def changed(self, x: Tensor) -> Tensor:
        entries, *along = self.vector.shape
        others = (1,) * (x.dim() - self.vector.dim())
        return x.to(self.vector.device) * self.vector.view(entries, *others, *along)


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why IA3 cannot run at this live module."""
    return not_rerunnable(module) if site.settings.get("feedforward") else None


def changes(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """Whether any value of the vector is not one."""
    return bool((roles["l"] != 1).any())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site. IA3 has no dropout."""
    vector = roles["l"]
    along = (vector.numel(), *(1,) * len(shape.kernel))  # no batch: a convolution may have none
    kind = InputFactors if site.settings.get("feedforward") else OutputFactors
    return kind(vector, along)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``(l - 1) * W`` along the outputs, at a feedforward module along the inputs (of a grouped
    convolution: those of each output's group)."""
    change = roles["l"].flatten() - 1
    feedforward = bool(site.settings.get("feedforward"))
    if feedforward is (shape.kind is ModuleKind.CONV1D):  # along the rows
        return lambda rows: weight[rows].to(change) * _along(change[rows], weight)
    if shape.kind is ModuleKind.CONV1D:
        return lambda rows: weight[rows].to(change) * change
    of_group = change.view(shape.groups, -1)
    group = torch.arange(weight.shape[0], device=change.device) // (weight.shape[0] // shape.groups)
    return lambda rows: weight[rows].to(change) * _along(of_group[group[rows]], weight)


def _along(change: Tensor, weight: Tensor) -> Tensor:
    """In a shape that broadcasts with rows of ``weight``."""
    return change.view(*change.shape, *(1,) * (weight.dim() - change.dim()))


def delta_bias(
    site: SitePlan, shape: ModuleShape, bias: Tensor | None, roles: Roles
) -> Tensor | None:
    """``(l - 1) * b``, if the output is rescaled and there is a bias."""
    if bias is None or site.settings.get("feedforward"):
        return None
    return bias * (roles["l"].flatten() - 1)


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: ones; with ``init_ia3_weights: false`` normal numbers."""
    drawn = new.normal("l")
    return {"l": torch.ones_like(drawn) if new.config.get("init_ia3_weights", True) else drawn}


METHOD = Method(
    "IA3",
    build,
    unsupported=unsupported,
    changes=changes,
    delta_weight=delta_weight,
    delta_bias=delta_bias,
    initial=initial,
)
