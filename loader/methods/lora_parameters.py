"""LoRA on a parameter of a module (``target_parameters``): the module runs with ``W + s * BA``.

Follows PEFT, ``tuners/lora/layer.py``, ``ParamWrapper``: A (r * experts, in) is cut expert by
expert, B (out, r * experts) rank by rank; of a parameter (experts, out, in) each expert's delta is
B_e A_e, of one (experts, in, out) its transpose. Two dimensions are one expert. See
``registry.methods.lora_parameters`` for which of them is `in`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...registry.files.facts import TARGET, ModuleShape, SitePlan
from ...registry.methods.lora_attention import reader_of
from ...registry.methods.lora_parameters import IN_FIRST, is_ambiguous
from ..sites.weight_sites import can_stand_in
from . import lora
from .deltas import Delta, Roles
from .method import Method


class ParameterFactors:
    """The factors of one parameter, by its name in the module."""

    __slots__ = ("a", "b", "name", "scale", "shape", "site")

    def __init__(self, site: SitePlan, shape: tuple[int, ...], roles: Roles) -> None:
        self.site = site
        self.name = reader_of(site)[1]
        self.shape = shape
        self.a = roles["A"]
        self.b = roles["B"]
        self.scale = site.scale

    def add_to(self, module: nn.Module, parameter: Tensor, weight: float) -> Tensor:
        """``parameter + weight * delta``, in the wider dtype of both; the parameter is not
        changed."""
        left, right = self.sides(module)
        if left.dtype is not parameter.dtype or left.device != parameter.device:
            wide = torch.promote_types(left.dtype, parameter.dtype)
            left, right = left.to(parameter.device, wide), right.to(parameter.device, wide)
        alpha = self.scale * weight
        base = parameter.to(left.dtype)
        if base.dim() == 2:
            return torch.addmm(base, left[0], right[0], alpha=alpha)
        return torch.baddbmm(base, left, right, alpha=alpha)

    def sides(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """(experts, rows, r) and (experts, r, columns) of the parameter."""
        experts = self.shape[0] if len(self.shape) == 3 else 1
        a = self.a.reshape(experts, -1, self.a.shape[-1])
        b = self.b.reshape(self.b.shape[0], -1, experts).permute(2, 0, 1)
        turned = is_turned(self.site, module, self.shape, a.shape[-1])
        return (a.mT, b.mT) if turned else (b, a)


def is_turned(site: SitePlan, module: nn.Module, shape: tuple[int, ...], width: int) -> bool:
    """Whether ``width``, A's input dimension, is the parameter's second and not its last."""
    if is_ambiguous(shape):
        return _written(site, module)
    return len(shape) == 3 and shape[0] > 1 and shape[1] == width


def _written(site: SitePlan, module: nn.Module) -> bool:
    """The same for an ambiguous shape, by what the site's PEFT writes; the live module knows
    whether it is transposed."""
    plain, transposed = site.settings[IN_FIRST]
    return transposed if getattr(module, "is_transposed", False) else plain


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why this parameter cannot be replaced during a call."""
    name = site.settings["parameter"]
    parameter = module._parameters.get(name)  # pyright: ignore[reportPrivateUsage]
    if parameter is None:
        return f"this {type(module).__name__} itself has no parameter {name}"
    if type(parameter.data) is not Tensor or not parameter.is_floating_point():
        return f"{name} is quantised"
    if TARGET in site.settings:  # the attention that reads it runs on a stand-in
        return None
    if is_ambiguous(tuple(parameter.shape)) and IN_FIRST not in site.settings:
        return f"the layout of the factors of {name} is unknown"
    return None if can_stand_in(module) else f"its forward cannot run with another {name}"


def shapes(site: SitePlan, module: nn.Module, shape: ModuleShape) -> Mapping[str, tuple[int, ...]]:
    """The shapes of new A and B at this live module."""
    of = shape.parameters[site.settings["parameter"]]
    experts = of[0] if len(of) == 3 else 1
    turned = experts > 1 and _written(site, module)
    inner, outer = (of[-2], of[-1]) if turned else (of[-1], of[-2])
    return {"A": (site.rank * experts, inner), "B": (outer, site.rank * experts)}


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> ParameterFactors:
    """The factors of one parameter; they have no dropout."""
    own = shape.parameters[site.settings["parameter"]]
    return ParameterFactors(site, own, roles)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``scale`` times each expert's product; the rows of all experts, one after the other."""
    name = site.settings["parameter"]
    left, right = ParameterFactors(site, shape.parameters[name], roles).sides(module)
    experts, height, _ = left.shape

    def delta(rows: slice) -> Tensor:
        start, stop, _ = rows.indices(experts * height)
        parts: list[Tensor] = []
        while start < stop:
            expert, at = divmod(start, height)
            end = min(height, at + stop - start)
            parts.append(left[expert, at:end] @ right[expert])
            start += end - at
        return torch.cat(parts).mul_(site.scale)

    return delta


METHOD = Method(
    "LORA_PARAMETER",
    build,
    unsupported=unsupported,
    shapes=shapes,
    delta_weight=delta_weight,
    input_roles=frozenset({"A", "B"}),
    initial=lora.initial,
)
