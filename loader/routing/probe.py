"""Records the inputs of a base's sites, in a call that asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

ROWS = 3


@dataclass(eq=False)
class Probe:
    """What the sites see while the base is probed."""

    seen: dict[str, bool] = field(default_factory=dict)
    """Whether a site saw the three rows each time it ran."""

    def see(self, name: str, x: Any) -> None:
        fits = isinstance(x, torch.Tensor) and x.dim() > 1 and len(x) == ROWS
        self.seen[name] = self.seen.get(name, True) and fits and _alike(x[0], x[2])


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    near = 1e-2 if one.element_size() < 4 else 1e-4
    scale = float(one.detach().abs().max()) if one.numel() else 0.0
    return torch.allclose(one.float(), other.float(), rtol=near, atol=near * scale)
