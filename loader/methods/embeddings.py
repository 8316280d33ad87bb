"""What an embedding does beyond looking up rows: padding, a maximal norm, a scale.

Deltas do the same, as in PEFT (0.21, ``tuners/lora/layer.py``, ``Embedding._embed`` and
``_get_embed_scale``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapter.factors import RowDelta, RowPart
from ..routing.batched import Entries, size_of, stacked


def embedded(embedding: nn.Embedding, x: Tensor, a: Tensor) -> Tensor:
    """The columns of ``a`` (r, num_embeddings) for the ids in ``x``, as ``embedding`` would look
    them up: (..., r)."""
    low = F.embedding(
        x.to(a.device),
        a.t(),
        padding_idx=embedding.padding_idx,
        scale_grad_by_freq=embedding.scale_grad_by_freq,
    )
    # with max_norm, F.embedding would renormalise A itself, in place
    return bounded(embedding, low)


def bounded(embedding: nn.Embedding, rows: Tensor) -> Tensor:
    """``rows`` with no norm above the embedding's ``max_norm``, where it has one. torch shortens
    them outside of autograd: the gradients are those of the rows before."""
    if embedding.max_norm is None:
        return rows
    with torch.no_grad():
        norms = rows.norm(p=embedding.norm_type, dim=-1, keepdim=True)
        factor = embedding.max_norm / (norms + 1e-7)
        shorter = torch.where(norms > embedding.max_norm, rows * factor, rows)
    return rows + (shorter - rows).detach() if rows.requires_grad else shorter


def scaled_like(embedding: nn.Module, rows: Tensor) -> Tensor:
    """``rows`` times the ``embed_scale`` of embeddings that scale their output (Gemma's)."""
    scale = getattr(embedding, "embed_scale", None)
    if scale is None:
        return rows
    return rows * (scale.to(rows) if isinstance(scale, Tensor) else scale)


@dataclass(frozen=True, eq=False)
class LowRankTable(RowPart):
    """At an embedding: ``delta(id) = b @ a[:, id]``, a (r, num_embeddings), b (embedding_dim, r)
    with scale and weight in it."""

    a: Tensor
    b: Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, LowRankTable]], rows: int) -> RowDelta:
        return LowRankTableRows(parts, rows)


class LowRankTableRows:
    """The tables of all adapters one after the other, each once: (sum of num_embeddings, r); the
    first row of each entry's table, (entries,); ``b`` (entries, r, embedding_dim)."""

    def __init__(self, parts: Sequence[tuple[int, LowRankTable]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        tables = list({id(part.a): part.a for _, part in parts}.values())
        rank = max(table.shape[0] for table in tables)
        starts, start = dict[int, int](), 0
        for table in tables:
            starts[id(table)] = start
            start += table.shape[1]
        self.table = torch.cat([F.pad(t.t(), (0, rank - t.shape[0])) for t in tables])
        self.starts = torch.tensor([starts[id(p.a)] for _, p in parts], device=self.table.device)
        self.b = stacked([F.pad(part.b, (0, rank - part.b.shape[1])).t() for _, part in parts])
        wide = torch.promote_types(self.table.dtype, self.b.dtype)
        self.table, self.b = self.table.to(wide), self.b.to(wide)
        self.nbytes = size_of(self.table, self.b)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        embedding = cast(nn.Embedding, module)
        ids = self.entries.take(x, repeat).to(self.table.device).flatten(1)
        low = F.embedding(ids + self.starts[:, None], self.table)
        if embedding.padding_idx is not None and low.requires_grad:  # it is never trained
            low = torch.where((ids == embedding.padding_idx).unsqueeze(-1), low.detach(), low)
        delta = scaled_like(embedding, torch.bmm(bounded(embedding, low), self.b))
        shape = (len(self.entries), repeat, *out.shape[1:])
        return self.entries.add(out, delta.view(shape), repeat)
