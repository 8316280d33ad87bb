"""IA3 at a site (https://arxiv.org/abs/2205.05638): ``l * module(x)`` or ``module(l * x)``.

Follows PEFT 0.21, ``tuners/ia3/layer.py``: the vector rescales the whole output, bias included;
at a feedforward module the input, which is then cast back to its dtype.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from .new_site import NewSite
from .rerun import blend, not_rerunnable, with_input

Shape = tuple[int, ...]


class _Rescaling:
    __slots__ = ("_shape", "l")

    def __init__(self, vector: torch.Tensor, shape: Shape) -> None:
        self.l = vector
        self._shape = shape

    def rescaled(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` along its channels, in the wider dtype of both."""
        return x.to(self.l.device) * self.l.view(self._shape)


class OutputFactors(_Rescaling):
    """Rescales what the module returns."""

    __slots__ = ()

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        return blend(out, base, self.rescaled(base), weight)


class InputFactors(_Rescaling):
    """Rescales what a feedforward module is given."""

    __slots__ = ()

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        return with_input(module, x, self.rescaled(x).to(x.dtype), base, out, weight)


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why IA3 cannot sit on this live module, beyond what its sizes tell."""
    return not_rerunnable(module) if site.settings.get("feedforward") else None


def changes(site: SitePlan, roles: Mapping[str, torch.Tensor]) -> bool:
    """Whether the vector is anything but ones."""
    return bool((roles["l"] != 1).any())


def build(
    site: SitePlan, shape: ModuleShape, roles: Mapping[str, torch.Tensor], dropout: float
) -> Factors:
    """The factors at one site, from placed tensors by role. IA3 has no dropout."""
    vector = roles["l"]
    along = (vector.numel(), *(1,) * len(shape.kernel))  # no batch: a convolution may have none
    kind = InputFactors if site.settings.get("feedforward") else OutputFactors
    return kind(vector, along)


def initial(new: NewSite) -> Mapping[str, torch.Tensor]:
    """PEFT's initialisation: ones, which change nothing; with ``init_ia3_weights: false`` normal
    numbers."""
    drawn = new.normal("l")
    return {"l": torch.ones_like(drawn) if new.config.get("init_ia3_weights", True) else drawn}


PARAMETERS: Mapping[str, str] = {"l": "ia3_l.{adapter}"}
"""PEFT's live names of the roles, after the module's own."""
