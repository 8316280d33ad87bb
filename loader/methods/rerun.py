"""What methods need that change a module's input or rescale its output.

Such a delta is the difference between two answers of the module. The second one comes from the
module's own forward, so quantised weights, accelerate's offload, float32 modules and the bias are
as in the base.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..adapter.factors import RowDelta, RowPart
from ..routing.batched import Entries, size_of
from ..routing.routing import CURRENT, run_with
from ..sites.sites import OutputSite


def blend(out: Tensor, base: Tensor, new: Tensor, weight: float) -> Tensor:
    """``out + weight * (new - base)``; ``new`` itself where that is what it comes to."""
    new = new.to(out.device)
    if out is base and weight == 1:
        return new
    return out + (new - base) * weight


def with_input(
    module: nn.Module, x: Tensor, changed: Tensor, base: Tensor, out: Tensor, weight: float
) -> Tensor:
    """``out + weight * (module(changed) - module(x))``, where the module returned ``base`` for
    ``x``. Hooks around its forward do not run again; what they added to ``base`` stays."""
    new = cast(Tensor, module.forward(changed))
    if _hooked(module):
        return out + (new - module.forward(x)).to(out.device) * weight
    return blend(out, base, new, weight)


def _hooked(module: nn.Module) -> bool:
    """Whether hooks of others may have changed what the module returned."""
    hooks = module._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    return any(not isinstance(hook, OutputSite) for hook in hooks)


@dataclasses.dataclass(frozen=True, eq=False)
class OtherInput(RowPart):
    """``delta(x) = weight * (module(changed x) - module(x))``."""

    weight: float

    @classmethod
    @abstractmethod
    def changing(cls, parts: Sequence[Any]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """What changes the inputs of all ``parts`` at once, (entries, repeat, ...) to the same
        shape, and the tensor that it holds."""

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, OtherInput]], rows: int) -> RowDelta:
        return OtherInputRows(parts, rows)


class OtherInputRows:
    """One more run of the module, for all entries."""

    def __init__(self, parts: Sequence[tuple[int, OtherInput]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        self.weights = torch.tensor([part.weight for _, part in parts])
        self.change, held = type(parts[0][1]).changing([part for _, part in parts])
        self.nbytes = size_of(held)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        mine = self.entries.take(x, repeat)
        new = self._run(module, self.change(mine).to(x.dtype))
        old = self._run(module, mine) if _hooked(module) else self.entries.take(base, repeat)
        return self.entries.add(out, difference(new, old, self.weights), repeat)

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        """The module's answers to ``x`` (entries, repeat, ...), each with the whole module of its
        own row where an adapter brings one."""
        flat, call = x.flatten(0, 1), CURRENT.get()
        if call is None or call.rows is None or "forward" not in module.__dict__:
            found = module.forward(flat)
        else:
            of_entries = dataclasses.replace(call, rows=call.rows.of(self.entries.rows))
            found = run_with(of_entries, module.forward, (flat,), {})
        return cast(Tensor, found).unflatten(0, x.shape[:2])


def difference(new: Tensor, old: Tensor, weights: Tensor) -> Tensor:
    """``weights * (new - old)``, entry by entry, at least in float32: adding it to ``old`` gives
    ``new`` again in a narrower dtype."""
    wide = torch.promote_types(new.dtype, torch.float32)
    weights = weights.to(old.device, wide).view(-1, *(1,) * (old.dim() - 1))
    return (new.to(old.device, wide) - old) * weights


def not_rerunnable(module: nn.Module) -> str | None:
    """Why another input cannot be given to the module: its forward takes more than one, and what
    the model gives for the others is not known here."""
    try:
        parameters = inspect.signature(cast(Any, type(module).forward)).parameters.values()
    except (TypeError, ValueError):
        return None
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(named) <= 2:  # self, and the input
        return None
    names = ", ".join(named[1:])
    return f"the forward of {type(module).__name__} takes more than one input ({names})"
