"""The dtype and the device of a site's factors: those of the module they act on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from .dtypes import COMPUTE


class Placement(NamedTuple):
    """A dtype and a device."""

    dtype: torch.dtype
    device: torch.device


def placement_of(
    module: nn.Module, model: nn.Module, dtype: torch.dtype | None = None
) -> Placement | None:
    """The placement of factors for ``module``: ``dtype`` if declared, else the dtype in which the
    module computes, on the device where it computes. ``None`` where it has no weights."""
    weight = module._parameters.get("weight")  # pyright: ignore[reportPrivateUsage]
    if (
        type(module) is nn.Linear
        and weight is not None
        and weight.dtype in COMPUTE
        and not weight.is_meta
    ):
        return Placement(dtype or weight.dtype, weight.device)  # the usual case
    device = device_of(module, model)
    if device is None:
        return None
    return Placement(dtype or compute_dtype(module, model), device)


def compute_dtype(module: nn.Module, model: nn.Module) -> torch.dtype:
    """The dtype of the module's weights, or for quantised weights the one it computes in."""
    declared = getattr(module, "compute_dtype", None)  # bitsandbytes' 4-bit linear, HQQ
    if isinstance(declared, torch.dtype) and declared in COMPUTE:
        return declared
    tensors = itertools.chain(_own_tensors(module), module.parameters())  # a container: its parts
    for tensor in tensors:
        if tensor.dtype in COMPUTE:
            return tensor.dtype
    of_model = getattr(model, "dtype", None)
    if isinstance(of_model, torch.dtype) and of_model in COMPUTE:
        return of_model
    return next((p.dtype for p in model.parameters() if p.dtype in COMPUTE), torch.float32)


def device_of(module: nn.Module, model: nn.Module) -> torch.device | None:
    """The device on which the module computes. Weights that accelerate offloads are on ``meta``
    between uses; its hook has the device. ``None`` where there is nothing to compute with."""
    own = next(iter(_own_tensors(module)), None)
    if own is not None and not own.is_meta:
        return own.device
    device = _execution_device(getattr(module, "_hf_hook", None))
    if device is not None:
        return device
    if own is None:  # a container: where its first part is
        for child in module.children():
            if (found := device_of(child, model)) is not None:
                return found
        first = next((p for p in model.parameters() if not p.is_meta), None)
        return first.device if first is not None else None
    return None


def own_parameter(module: nn.Module, name: str) -> nn.Parameter | None:
    """The module's own parameter, also where the running call changes it for the base's code (see
    :mod:`.weight_reads`); ``None`` where there is none."""
    return dict.get(module._parameters, name)  # pyright: ignore[reportPrivateUsage]


def offloaded(module: nn.Module, name: str) -> torch.Tensor | None:
    """A parameter of the module by its own name (``weight``, ``bias``), from accelerate's weights
    map where it is on ``meta`` now; ``None`` where there is none."""
    own = own_parameter(module, name)
    live = getattr(module, name, None) if own is None else own
    if not isinstance(live, torch.Tensor):
        return None
    return from_weights_map(module, name) if live.is_meta else live


def from_weights_map(module: nn.Module, name: str) -> torch.Tensor | None:
    """A tensor from the weights map of the module's accelerate hook."""
    for hook in _hooks_of(getattr(module, "_hf_hook", None)):
        weights = getattr(hook, "weights_map", None)
        if weights is not None:
            try:
                return cast(torch.Tensor, weights[name])
            except KeyError:
                continue
    return None


def _own_tensors(module: nn.Module) -> Sequence[torch.Tensor]:
    """Its parameters, or else its buffers (GPTQ and AWQ keep weights there)."""
    own = [p for p in module._parameters.values() if p is not None]  # pyright: ignore[reportPrivateUsage]
    return own or [b for b in module._buffers.values() if b is not None]  # pyright: ignore[reportPrivateUsage]


def _hooks_of(hook: Any) -> list[Any]:
    """An accelerate hook, or those in a SequentialHook."""
    if hook is None:
        return []
    return list(getattr(hook, "hooks", None) or [hook])


def _execution_device(hook: Any) -> torch.device | None:
    for one in _hooks_of(hook):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None
