"""What methods need that change a module's input or rescale its output.

Such a delta is the difference between two answers of the module. The second one comes from the
module's own forward, so quantised weights, accelerate's offload, float32 modules and the bias are
as in the base.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import nn

from ..sites import OutputSite


def blend(out: torch.Tensor, base: torch.Tensor, new: torch.Tensor, weight: float) -> torch.Tensor:
    """``out + weight * (new - base)``; ``new`` itself where that is what it comes to."""
    new = new.to(out.device)
    if out is base and weight == 1:
        return new
    return out + (new - base) * weight


def with_input(
    module: nn.Module,
    x: torch.Tensor,
    changed: torch.Tensor,
    base: torch.Tensor,
    out: torch.Tensor,
    weight: float,
) -> torch.Tensor:
    """``out + weight * (module(changed) - module(x))``, where the module returned ``base`` for
    ``x``. Hooks around its forward do not run again; what they added to ``base`` stays."""
    new = cast(torch.Tensor, module.forward(changed))
    hooks = module._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    if any(not isinstance(hook, OutputSite) for hook in hooks):
        return out + (new - module.forward(x)).to(out.device) * weight
    return blend(out, base, new, weight)


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
