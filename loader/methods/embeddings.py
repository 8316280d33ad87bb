"""What an embedding does beside looking up rows: padding, a largest norm, a scale.

Deltas keep all of it, as PEFT's do (0.21, ``tuners/lora/layer.py``, ``Embedding._embed`` and
``_get_embed_scale``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def embedded(embedding: nn.Embedding, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """The columns of ``a`` (r, num_embeddings) for the ids in ``x``, as ``embedding`` would look
    them up: (..., r)."""
    low = F.embedding(
        x.to(a.device),
        a.t(),
        padding_idx=embedding.padding_idx,
        scale_grad_by_freq=embedding.scale_grad_by_freq,
    )
    # given max_norm, F.embedding would renormalise A itself, in place and for good
    return bounded(embedding, low)


def bounded(embedding: nn.Embedding, rows: torch.Tensor) -> torch.Tensor:
    """``rows`` with no norm above the embedding's ``max_norm``, where it has one."""
    if embedding.max_norm is None:
        return rows
    norms = rows.norm(p=embedding.norm_type, dim=-1, keepdim=True).detach()
    factor = embedding.max_norm / (norms + 1e-7)
    return torch.where(norms > embedding.max_norm, rows * factor, rows)


def scaled_like(embedding: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """``rows`` times the ``embed_scale`` by which some embeddings (Gemma's) scale their output."""
    scale = getattr(embedding, "embed_scale", None)
    if scale is None:
        return rows
    return rows * (scale.to(rows) if isinstance(scale, torch.Tensor) else scale)
