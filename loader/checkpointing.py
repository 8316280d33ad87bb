"""Gradient checkpointing runs parts of the forward again in backward: with the same routing.

transformers gives each checkpointed module the function to call, ``_gradient_checkpointing_func``
(``modeling_utils.PreTrainedModel._set_gradient_checkpointing``); it is wrapped here so that what
it runs, now and later and on whatever thread, sees the call that was current at forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import RoutingError
from .routing import CURRENT, run_with
from .sites import lost

_FUNCTION = "_gradient_checkpointing_func"


class Carrying:
    """A checkpointing function that carries the current call into the recompute."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner = inner

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = CURRENT.get()
        if call is None:
            return self.inner(function, *args, **kwargs)
        carried = dataclasses.replace(call, inside=True, carried=True)

        def run(*inner_args: Any, **inner_kwargs: Any) -> Any:
            gone = lost(carried)
            if gone is not None and CURRENT.get() is not call:
                raise RoutingError(
                    codes.ROUTING_LOST.finding(
                        f"{gone.name!r} was deleted between forward and backward"
                    )
                )
            return run_with(carried, function, inner_args, inner_kwargs)

        return self.inner(run, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return self.inner  # a copy of the base carries nothing

    def __reduce__(self) -> Any:
        return _same, (self.inner,)


def checkpointable(model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that transformers may switch to checkpointing."""
    return tuple(m for m in model.modules() if hasattr(m, "gradient_checkpointing"))


def carry(modules: Iterable[nn.Module]) -> None:
    """Wrap the checkpointing function of every module that has one now."""
    for module in modules:
        function = module.__dict__.get(_FUNCTION)
        if function is not None and type(function) is not Carrying:
            module.__dict__[_FUNCTION] = Carrying(function)


def stop_carrying(modules: Iterable[nn.Module]) -> None:
    """Give every module its own function back."""
    for module in modules:
        function = module.__dict__.get(_FUNCTION)
        if type(function) is Carrying:
            module.__dict__[_FUNCTION] = function.inner


def _same(function: Any) -> Any:
    return function
