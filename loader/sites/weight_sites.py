"""Sites on a module's own parameters: the module runs with other weights, for one call.

For weights that have no module of their own (a mixture's experts, all in one parameter). The base
is not changed, not even for a moment: a stand-in, which shares everything with the module except
its dictionary of parameters, runs the module's forward. Other threads and direct calls of the base
see the base.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, cast

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.weights import weight_at
from ..adapter.adapter import Adapter
from ..adapter.factors import WeightFactors
from ..base.interception import Interception
from ..routing.routing import CURRENT
from .sites import InterceptingSite, note_use


class WeightSite(InterceptingSite[tuple[WeightFactors, ...]]):
    """Runs a module's forward with the weights of the call's adapters."""

    __slots__ = ()

    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = CURRENT.get()
        if call is None or call.owner is not self.owner:
            return inner(*args, **kwargs)
        acting: list[tuple[WeightFactors, float]] = []
        used: list[Adapter] = []
        for adapter, weight in call.terms:
            factors = self.factors.get(adapter)
            at = weight_at(weight, self.name)
            if factors is not None and at:
                acting += [(one, at) for one in factors]
                used.append(adapter)
        if not acting:
            return inner(*args, **kwargs)
        if call.rows is not None:
            raise RoutingError(
                codes.ROWS_LOST.finding(
                    f"{self.name} has the same weights for all rows of the batch"
                )
            )
        note_use(call, self.name, used)
        forward = _on_stand_in(self.module, inner, acting)
        if forward is None:
            raise RoutingError(
                codes.WEIGHT_FORWARD.finding(
                    f"The forward of {self.name} is not the module's own: {inner!r}"
                )
            )
        return forward(*args, **kwargs)


def can_stand_in(module: nn.Module) -> bool:
    """Whether the module's forward can run on a stand-in."""
    return _on_stand_in(module, module.forward, ()) is not None


def _copy_of(module: nn.Module) -> nn.Module:
    """The same module with its own dictionary of parameters."""
    copied = object.__new__(type(module))
    copied.__dict__.update(module.__dict__)
    copied.__dict__["_parameters"] = dict(module._parameters)  # pyright: ignore[reportPrivateUsage]
    return copied


def _place(module: nn.Module, stand_in: nn.Module, path: str) -> tuple[dict[str, Any], str]:
    """The dictionary and name of a parameter of the stand-in; modules on the path are copied."""
    *way, leaf = path.split(".")
    for name in way:
        inside = dict(stand_in._modules)  # pyright: ignore[reportPrivateUsage]
        module = module.get_submodule(name)
        if inside[name] is module:
            inside[name] = _copy_of(module)
        stand_in.__dict__["_modules"] = inside
        stand_in = cast(nn.Module, inside[name])
    return cast("dict[str, Any]", stand_in._parameters), leaf  # pyright: ignore[reportPrivateUsage]


def _on_stand_in(
    module: nn.Module,
    forward: Callable[..., Any],
    acting: Sequence[tuple[WeightFactors, float]],
) -> Callable[..., Any] | None:
    """``forward`` with a stand-in for ``module``. Its parameters are changed at the last moment,
    because accelerate first reads offloaded ones into the stand-in."""
    stand_in = _copy_of(module)
    places = {one.name: _place(module, stand_in, one.name) for one, _ in acting}

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = {name: parameters[leaf] for name, (parameters, leaf) in places.items()}
        now = dict(before)
        for one, weight in acting:
            now[one.name] = one.add_to(module, now[one.name], weight)
        for name, (parameters, leaf) in places.items():
            parameters[leaf] = now[name].to(before[name].dtype)
        try:
            return function(stand_in, *args, **kwargs)
        finally:
            for name, (parameters, leaf) in places.items():
                parameters[leaf] = before[name]

    def moved(forward: Any) -> Callable[..., Any] | None:
        if isinstance(forward, MethodType) and forward.__self__ is module:
            return functools.partial(run, forward.__func__)
        if isinstance(forward, Interception):
            inner = moved(forward.inner)
            around = forward.around
            return None if inner is None else lambda *args, **kwargs: around(inner, args, kwargs)
        if isinstance(forward, functools.partial) and forward.args[:1] == (module,):
            # accelerate: its hooks, around what it found, which it calls by this name
            old = moved(module.__dict__.get("_old_forward"))
            if old is None:
                return None
            stand_in.__dict__["_old_forward"] = old
            return functools.partial(forward.func, stand_in, *forward.args[1:], **forward.keywords)
        return None

    return moved(forward)
