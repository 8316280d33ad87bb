"""Gradient checkpointing repeats parts of the forward in backward, with the same routing.

transformers gives each checkpointed module a function, ``_gradient_checkpointing_func``
(``modeling_utils.PreTrainedModel._set_gradient_checkpointing``). It is wrapped here, so that
everything it runs, then or later, on any thread, sees the call that was current at forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ..base.interception import itself
from ..routing.routing import CURRENT, run_with

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
            gone = next((adapter for adapter, _ in carried.terms if adapter.retired), None)
            if gone is not None and CURRENT.get() is not call:
                raise RoutingError(
                    codes.ROUTING_LOST.finding(
                        f"{gone.name!r} was deleted between forward and backward"
                    )
                )
            return run_with(carried, function, inner_args, inner_kwargs)

        if getattr(self.inner, "keywords", {}).get("use_reentrant", True):
            args = _recorded(args)
        return self.inner(run, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return self.inner  # a copy of the base is not adapted

    def __reduce__(self) -> Any:
        return itself, (self.inner,)


def _recorded(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, of which at least one requires a gradient.

    Reentrant checkpointing records no gradients for a part whose inputs do not require one, such as
    the first layer over frozen embeddings: the adapters in it would not be trained, silently.
    transformers' ``enable_input_require_grads`` adds a hook to the base; this does not change it.
    """
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if not torch.is_grad_enabled() or any(t.requires_grad for t in tensors):
        return args
    first = next((t for t in tensors if t.is_floating_point()), None)
    if first is None:
        return args
    return tuple(a.detach().requires_grad_() if a is first else a for a in args)


def checkpointable(model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules for which transformers can enable checkpointing."""
    return tuple(m for m in model.modules() if hasattr(m, "gradient_checkpointing"))


def carry(modules: Iterable[nn.Module]) -> None:
    """Wrap the checkpointing function of every module that has one."""
    for module in modules:
        function = module.__dict__.get(_FUNCTION)
        if function is not None and type(function) is not Carrying:
            module.__dict__[_FUNCTION] = Carrying(function)


def stop_carrying(modules: Iterable[nn.Module]) -> None:
    """Restore the checkpointing function of every module."""
    for module in modules:
        function = module.__dict__.get(_FUNCTION)
        if type(function) is Carrying:
            module.__dict__[_FUNCTION] = function.inner
