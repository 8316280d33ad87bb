"""What a pair of factors adds to a weight, written out."""

from __future__ import annotations

import torch

from .pairs import Pair


def dense(pair: Pair) -> torch.Tensor:
    """``scale * (b @ a)``: (groups, out / groups, in * kernel), float32. PEFT's
    ``get_delta_weight``, always as (out, in)."""
    return (pair.b @ pair.a) * pair.scale
