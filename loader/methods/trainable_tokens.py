"""Trainable tokens at a site: single rows of an embedding, replaced; of a head that is tied to it,
the same tokens' logits.

Follows PEFT 0.21, ``tuners/trainable_tokens/layer.py``, which puts the rows into a copy of the
whole weight in each forward. Here only what they change is computed. PEFT leaves out a head's bias
where it ties it; here it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ...registry.facts import ModuleKind, ModuleShape, SitePlan
from ...registry.methods.trainable_tokens import rows_of
from ..placement import offloaded
from ..sites import Factors
from .embeddings import bounded, scaled_like
from .new_site import NewSite


class EmbeddingRows:
    """At an embedding: rows (tokens, embedding_dim) in the place of its own at ``indices``."""

    __slots__ = ("_order", "_sorted", "rows")

    def __init__(self, rows: torch.Tensor, indices: tuple[int, ...]) -> None:
        self.rows = rows
        self._sorted, self._order = torch.tensor(indices, device=rows.device).sort()

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        rows = self.rows
        ids = x.to(rows.device, torch.int64)
        known, order = self._sorted.to(rows.device), self._order.to(rows.device)
        at = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
        hit = (known[at] == ids).unsqueeze(-1).to(out.device)
        found = F.embedding(order[at], rows)
        found = scaled_like(module, bounded(cast(nn.Embedding, module), found)).to(out.device)
        if weight == 1 and out is base:
            return torch.where(hit, found.to(out.dtype), out)  # not a difference added again
        return torch.where(hit, out + (found - base) * weight, out)


class HeadRows:
    """At a linear head: rows (tokens, in) in the place of its weight's at ``indices``."""

    __slots__ = ("_indices", "rows")

    def __init__(self, rows: torch.Tensor, indices: tuple[int, ...]) -> None:
        self.rows = rows
        self._indices = torch.tensor(indices, device=rows.device)

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        rows, at = self.rows, self._indices.to(out.device)
        found = F.linear(x.to(rows), rows).to(out.device)
        bias = offloaded(module, "bias")
        if bias is not None:
            found = found + bias.to(found)[at]
        delta = (found - base.index_select(-1, at)) * weight
        return out.to(torch.promote_types(out.dtype, delta.dtype)).index_add(-1, at, delta)


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the rows cannot be put into this live module, beyond what their sizes tell."""
    indices = site.settings["indices"]
    if not indices:
        return "no trained tokens"
    rows = rows_of(shape)
    if rows is not None and any(not 0 <= index < rows for index in indices):
        return f"trained tokens outside its {rows} rows"
    return "trained tokens named twice" if len(set(indices)) < len(indices) else None


def changes(site: SitePlan, roles: Mapping[str, torch.Tensor]) -> bool:
    """Whether there are rows at all."""
    return bool(roles["rows"].numel())


def alters(site: SitePlan, roles: Mapping[str, torch.Tensor], module: nn.Module) -> bool:
    """Whether the rows are others than the base's, where its weight can be read."""
    rows, weight = roles["rows"], offloaded(module, "weight")
    if weight is None or weight.is_meta or weight.shape[1:] != rows.shape[1:]:
        return changes(site, roles)
    at = torch.tensor(site.settings["indices"], device=weight.device)
    own = weight.detach()[at]
    return not torch.equal(own, rows.to(own))


def build(
    site: SitePlan, shape: ModuleShape, roles: Mapping[str, torch.Tensor], dropout: float
) -> Factors:
    """The rows at one site, from placed tensors by role; they know no dropout."""
    kind = EmbeddingRows if shape.kind is ModuleKind.EMBEDDING else HeadRows
    return kind(roles["rows"], site.settings["indices"])


def initial(new: NewSite) -> Mapping[str, torch.Tensor]:
    """PEFT's initialisation: the module's own rows; with ``init_weights: false`` (a field of
    ``TRAINABLE_TOKENS`` alone) normal numbers."""
    if not new.config.get("init_weights", True):
        return {"rows": new.normal("rows")}
    weight = new.weight()
    at = torch.tensor(new.site.settings["indices"], device=weight.device)
    return {"rows": weight[at]}


PARAMETERS: Mapping[str, str] = {"rows": "trainable_tokens_delta.{adapter}"}
"""PEFT's live name, after the module's own."""
