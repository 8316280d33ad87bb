"""Methods that change a module's input or rescale its output.

Their delta is the difference between two outputs of the module. The second one comes from the
module's own forward, so quantised weights, accelerate's offload, float32 modules and the bias act
as in the base.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..routing.batched import Entries
from ..routing.routing import CURRENT, run_with
from ..sites.sites import OutputSite
from .stacked_part import StackedPart, Taken


class ChangedOutput(ABC):
    """Factors that change what the module returns."""

    __slots__ = ()

    @abstractmethod
    def changed(self, x: Tensor) -> Tensor:
        """The output in place of ``x``."""

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        return blend(out, base, self.changed(base), weight)


class ChangedInput(ABC):
    """Factors that change what the module receives: ``weight * (module(changed) - module(x))``.

    Hooks around the module's forward do not run again; what they added to ``base`` stays.
    """

    __slots__ = ()

    @abstractmethod
    def changed(self, x: Tensor) -> Tensor:
        """The input in place of ``x``, in any dtype."""

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        new = cast(Tensor, module.forward(self.changed(x).to(x.dtype)))
        if is_hooked(module):
            return out + (new - module.forward(x)).to(out.device) * weight
        return blend(out, base, new, weight)


def blend(out: Tensor, base: Tensor, new: Tensor, weight: float) -> Tensor:
    """``out + weight * (new - base)``; ``new`` itself where the sum is equal to it."""
    new = new.to(out.device)
    if out is base and weight == 1:
        return new
    return out + (new - base) * weight


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks other than ours may have changed what the module returned."""
    hooks = module._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    return any(not isinstance(hook, OutputSite) for hook in hooks)


@dataclasses.dataclass(frozen=True, eq=False)
class OtherInput(StackedPart):
    """``delta(x) = weight * (module(changed x) - module(x))``: a stack runs the module once more,
    for all entries."""

    weight: Any

    @abstractmethod
    def changed(self, x: Tensor) -> Tensor:
        """The inputs of a stack in place of ``x`` (entries, repeat, ...)."""

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        x = taken.x
        new = _run(module, self.changed(x).to(x.dtype), taken.entries)
        old = _run(module, x, taken.entries) if is_hooked(module) else taken.base
        return difference(new, old, self.weight)


def _run(module: nn.Module, x: Tensor, entries: Entries) -> Tensor:
    """The module's outputs for ``x`` (entries, repeat, ...). If adapters replace the module, each
    row runs through its own."""
    flat, call = x.flatten(0, 1), CURRENT.get()
    if call is None or call.rows is None or "forward" not in module.__dict__:
        found = module.forward(flat)
    else:
        of_entries = dataclasses.replace(call, rows=call.rows.of(entries.rows))
        found = run_with(of_entries, module.forward, (flat,), {})
    return cast(Tensor, found).unflatten(0, x.shape[:2])


def difference(new: Tensor, old: Tensor, weights: Tensor) -> Tensor:
    """``weights * (new - old)``, entry by entry, at least in float32: adding it to ``old`` gives
    ``new`` again in a narrower dtype."""
    wide = torch.promote_types(new.dtype, torch.float32)
    weights = weights.to(old.device, wide).view(-1, *(1,) * (old.dim() - 1))
    return (new.to(old.device, wide) - old) * weights


def not_rerunnable(module: nn.Module) -> str | None:
    """Why the module cannot run with another input: its forward takes several, and the values of
    the others are not known here."""
    try:
        parameters = inspect.signature(cast(Any, type(module).forward)).parameters.values()
    except (TypeError, ValueError):
        return None
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(named) <= 2:  # self, and the input
        return None
    names = ", ".join(named[1:])
    return f"the forward of {type(module).__name__} takes more than one input ({names})"
