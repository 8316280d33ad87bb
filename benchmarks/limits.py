"""What no library can be faster than: the bytes that must be moved."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from safetensors import safe_open
from torch import nn


@cache
def _values(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118 - not a mapping


def decode_limit(base: nn.Module, adapter: Path, count: int) -> float:
    """How much longer a decode step with ``count`` distinct adapters takes than one without, if it
    takes as long as reading its weights: those of the base (its embedding is its head) and those of
    each adapter, all in float32."""
    weights = sum(parameter.numel() for parameter in base.parameters())
    return 1 + count * _values(adapter) / weights
