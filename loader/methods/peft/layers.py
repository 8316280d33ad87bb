"""A site at which PEFT's own layer runs: ``out + weight * (layer(x) - base)``.

The layer is outside of the base. Its ``base_layer`` is a stand-in of the base's class, whose
forward is the base module's own and whose tensors are the base's current ones (tuner layers: PEFT
0.21, ``tuners/tuners_utils.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....manifests.findings import loader as codes
from ....manifests.findings.errors import RoutingError
from ...base.float32 import InFloat32, cast_floats
from ...base.interception import intercepted
from ...routing.routing import CURRENT
from ...weights.placement import device_of, offloaded, own_parameter
from ..rerun import blend, is_hooked


@dataclass(eq=False, slots=True)
class _Known:
    """What the base module has just returned, so that it does not run again for the same input."""

    module: nn.Module
    x: Tensor
    base: Tensor
    used: bool = False


_KNOWN: ContextVar[_Known | None] = ContextVar("adapterdock_peft_known", default=None)


class PeftFactors:
    """``layer`` is a tuner layer of PEFT's with one adapter; ``by_batch``: a row's output depends
    on the other rows."""

    __slots__ = ("by_batch", "layer")

    def __init__(self, layer: nn.Module, by_batch: bool = False) -> None:
        self.layer = layer
        self.by_batch = by_batch

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        if self.by_batch and (call := CURRENT.get()) is not None and call.rows is not None:
            raise RoutingError(
                codes.ROWS_LOST.finding(
                    f"{type(self.layer).__module__} computes a row from all rows of the batch"
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
        if not known.used and is_hooked(module):  # what the hooks added to `base` stays
            return out + (new - module.forward(x)).to(out.device) * weight
        return blend(out, base, new, weight)

    def parts(self, module: nn.Module, weight: float) -> None:
        """None: rows of other adapters run separately."""


class _BaseForward:
    """The stand-in's forward: the base module's, without the hooks around it."""

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
    """The base module's current parameters; offloaded ones are read when they are used."""

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
    """The parameters of a stand-in while PEFT makes its layers."""

    OWN = "own"
    """The base's values, in the same memory."""
    NONE = "none"
    """None: they are on the ``meta`` device."""
    ZERO = "zero"
    """Zeros, which take no memory."""


def stand_in_of(module: nn.Module, values: Values = Values.OWN) -> nn.Module:
    """A module of the same class and sizes that PEFT may wrap: with its own parameters and without
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
    """From now on its tensors are the base module's current ones."""
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
        return old  # packed in a way that only the parameter's class knows
    if values is Values.NONE:
        value = torch.empty_like(old, device="meta")
    elif values is Values.ZERO:
        value = torch.zeros((), dtype=old.dtype).expand(old.shape)
    else:
        value = offloaded(module, name)
    return old if value is None else nn.Parameter(value.detach(), requires_grad=False)


def set_apart(layer: nn.Module, stand_in: nn.Module) -> None:
    """Remove the stand-in from the layer's modules, so that the layer owns only the adapter."""
    del layer._modules["base_layer"]  # pyright: ignore[reportPrivateUsage]
    vars(layer)["base_layer"] = stand_in


def buffers_of(layer: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(path, dictionary, name in it) of a layer's tensors that are not parameters: buffers, and
    tensors in plain dictionaries by the adapter's name."""
    for path, part in layer.named_modules(remove_duplicate=False):
        places = {"": part._buffers}  # pyright: ignore[reportPrivateUsage]
        plain = {f"{n}.": v for n, v in vars(part).items() if isinstance(v, dict)}
        places |= {n: v for n, v in plain.items() if not n.startswith("_")}
        for start, place in places.items():
            for name, value in place.items():
                if isinstance(value, Tensor):
                    inner = f"{start}{name}"
                    yield (f"{path}.{inner}" if path else inner), cast(Any, place), name
