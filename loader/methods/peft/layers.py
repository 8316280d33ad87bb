"""A site at which PEFT's own layer answers: ``out + weight * (layer(x) - base)``.

The layer stands beside the base, never in it. What it knows as its ``base_layer`` is a stand-in of
the base's class whose forward is the base module's own and whose tensors are the base's, as they
are now (tuner layers: PEFT 0.21, ``tuners/tuners_utils.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextvars import ContextVar
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....manifests.findings import loader as codes
from ....manifests.findings.errors import RoutingError
from ...base.float32 import InFloat32, cast_floats
from ...base.interception import intercepted
from ...routing.routing import CURRENT
from ...sites.sites import OutputSite
from ...weights.placement import device_of, offloaded, own_parameter
from ..rerun import blend


class _Known:
    """What the base module has just answered, so that it need not run again for the same input."""

    __slots__ = ("base", "module", "used", "x")

    def __init__(self, module: nn.Module, x: Tensor, base: Tensor) -> None:
        self.module = module
        self.x = x
        self.base = base
        self.used = False


_KNOWN: ContextVar[_Known | None] = ContextVar("adapterdock_peft_known", default=None)


class PeftFactors:
    """``layer`` is a tuner layer of PEFT's with one adapter; ``by_batch`` says that a row's answer
    depends on the others."""

    __slots__ = ("by_batch", "layer")

    def __init__(self, layer: nn.Module, by_batch: bool = False) -> None:
        self.layer = layer
        self.by_batch = by_batch

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        if self.by_batch and (call := CURRENT.get()) is not None and call.rows is not None:
            raise RoutingError(
                codes.ROWS_LOST.finding(
                    f"{type(self.layer).__module__} answers a row by all rows of the batch"
                )
            )
        if self.layer.training is not module.training:
            self.layer.train(module.training)
        known = _Known(module, x, base)
        token = _KNOWN.set(known)
        try:
            inside = cast_floats(x, torch.float32) if intercepted(module, InFloat32) else x
            new = cast(Tensor, self.layer(inside)).to(base.dtype)
        finally:
            _KNOWN.reset(token)
        if not known.used and _hooked(module):  # the hooks' part of the answer stays
            return out + (new - module.forward(x)).to(out.device) * weight
        return blend(out, base, new, weight)


def _hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    return any(not isinstance(hook, OutputSite) for hook in hooks)


class _BaseForward:
    """The stand-in's forward: the base module's own, without the hooks around it."""

    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        known = _KNOWN.get()
        same = known is not None and known.module is self.module and len(args) == 1 and not kwargs
        if known is not None and same and args[0] is known.x:
            known.used = True
            return known.base.clone()  # PEFT's layers may add to it in place
        return self.module.forward(*args, **kwargs)


class _Live(dict[str, Any]):
    """The base module's parameters as they are now; what is offloaded is read when it is asked
    for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module._parameters)  # pyright: ignore[reportPrivateUsage]
        self._module = module

    def __getitem__(self, name: str) -> Any:
        found = own_parameter(self._module, name)
        if found is None or not found.is_meta:
            return found
        value = offloaded(self._module, name)
        return found if value is None else value.to(device_of(self._module, self._module))

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


class Values(str, Enum):
    """What a stand-in's parameters hold while PEFT makes its layers."""

    OWN = "own"
    """The base's: the same memory."""
    NONE = "none"
    """Nothing: they are on the ``meta`` device."""
    ZERO = "zero"
    """Zeros, without memory for them."""


def stand_in_of(module: nn.Module, values: Values = Values.OWN) -> nn.Module:
    """A module of the same class and sizes that PEFT may wrap: parameters of its own, and no
    hooks."""
    found = object.__new__(type(module))
    own: dict[str, Any] = {
        name: OrderedDict() if name.endswith("_hooks") else value
        for name, value in vars(module).items()
        if name not in ("_hf_hook", "_old_forward", "forward")
    }
    own["_parameters"] = {
        name: _copied(module, name, values)
        for name in module._parameters  # pyright: ignore[reportPrivateUsage]
    }
    own["_buffers"] = dict(own["_buffers"])
    own["_modules"] = dict(own["_modules"])
    own["forward"] = _BaseForward(module)
    object.__setattr__(found, "__dict__", own)
    return found


def relink(stand_in: nn.Module, module: nn.Module) -> None:
    """From now on its tensors are the base module's own, whatever becomes of them."""
    vars(stand_in).update(
        _parameters=_Live(module),
        _buffers=vars(module)["_buffers"],
        _modules=vars(module)["_modules"],
    )


def _copied(module: nn.Module, name: str, values: Values) -> Any:
    old = own_parameter(module, name)
    if old is None:
        return None
    if type(old.data) is not Tensor or old.is_quantized:
        return old  # packed: the class of the parameter knows how
    if values is Values.NONE:
        value = torch.empty_like(old, device="meta")
    elif values is Values.ZERO:
        value = torch.zeros((), dtype=old.dtype).expand(old.shape)
    else:
        value = offloaded(module, name)
    return old if value is None else nn.Parameter(value.detach(), requires_grad=False)


def set_apart(layer: nn.Module, stand_in: nn.Module) -> None:
    """Take the stand-in out of the layer's own modules: what the layer owns is the adapter's."""
    del layer._modules["base_layer"]  # pyright: ignore[reportPrivateUsage]
    vars(layer)["base_layer"] = stand_in


def buffers_of(layer: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(path, dictionary that holds it, name in it) of the tensors of a layer that are none of its
    parameters: buffers, and tensors in plain dictionaries by the adapter's name."""
    for path, part in layer.named_modules(remove_duplicate=False):
        places = {"": part._buffers}  # pyright: ignore[reportPrivateUsage]
        plain = {f"{n}.": v for n, v in vars(part).items() if isinstance(v, dict)}
        places |= {n: v for n, v in plain.items() if not n.startswith("_")}
        for start, place in places.items():
            for name, value in place.items():
                if isinstance(value, Tensor):
                    inner = f"{start}{name}"
                    yield (f"{path}.{inner}" if path else inner), cast(Any, place), name
