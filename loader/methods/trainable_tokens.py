"""Trainable tokens at a site: replaced rows of an embedding, and the same tokens' logits of a head
that is tied to it.

Follows PEFT 0.21, ``tuners/trainable_tokens/layer.py``, which puts the rows into a copy of the
complete weight in each forward. Here only the difference is computed. PEFT leaves out the bias of a
tied head; here it stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ...registry.methods.trainable_tokens import rows_of
from ..adapter.factors import Factors, RowDelta, RowPart
from ..routing.batched import Entries, size_of
from ..sites.weight_reads import Read
from ..weights.placement import offloaded
from .deltas import Delta, Roles
from .embeddings import bounded, scaled_like
from .method import Method
from .new_site import NewSite
from .rerun import difference
from .stacked_part import StackedPart, Taken


class _Rows:
    """Rows (tokens, embedding_dim) in place of the weight's own at ``indices``. Code that reads the
    weight outside of its module gets the base's from PEFT's layer, and the adapter's from its
    wrapper: if the module is ``wrapped``."""

    __slots__ = ("_indices", "_wrapped", "rows")

    def __init__(self, rows: Tensor, indices: tuple[int, ...], wrapped: bool) -> None:
        self.rows = rows
        self._indices = indices
        self._wrapped = wrapped

    @property
    def reads(self) -> Mapping[str, Read]:
        """What reads of the module's parameters get, by their names."""
        return {"weight": self._read} if self._wrapped else {}

    def _read(self, own: Tensor, now: Tensor, weight: float) -> Tensor:
        at, new = torch.tensor(self._indices, device=own.device), self.rows.to(own)
        if weight == 1 and now is own:
            return own.index_copy(0, at, new)  # not a difference added again
        return now.index_add(0, at, new - own[at], alpha=weight)


class EmbeddingRows(_Rows):
    """At an embedding."""

    __slots__ = ("_order", "_sorted")

    def __init__(self, rows: Tensor, indices: tuple[int, ...], wrapped: bool) -> None:
        super().__init__(rows, indices, wrapped)
        self._sorted, self._order = torch.tensor(indices, device=rows.device).sort()

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        rows = self.rows
        ids = x.to(rows.device, torch.int64)
        known, order = self._sorted.to(rows.device), self._order.to(rows.device)
        at = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
        hit = (known[at] == ids).unsqueeze(-1).to(out.device)
        places = torch.where(known[at] == ids, order[at], len(rows))  # zeros for other tokens
        embedding = cast(nn.Embedding, module)
        never = embedding.padding_idx  # its row is never trained
        found = F.embedding(
            places,
            F.pad(rows, (0, 0, 0, 1)),
            padding_idx=self._indices.index(never) if never in self._indices else None,
            scale_grad_by_freq=embedding.scale_grad_by_freq,
        )
        found = scaled_like(module, bounded(embedding, found)).to(out.device)
        if weight == 1 and out is base:
            return torch.where(hit, found.to(out.dtype), out)  # not a difference added again
        return torch.where(hit, out + (found - base) * weight, out)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if cast(nn.Embedding, module).scale_grad_by_freq and self.rows.requires_grad:
            return None
        return (TokenRows(weight, self.rows[self._order], self._sorted),)


class HeadRows(_Rows):
    """At a linear head."""

    __slots__ = ("_at",)

    def __init__(self, rows: Tensor, indices: tuple[int, ...], wrapped: bool) -> None:
        super().__init__(rows, indices, wrapped)
        self._at = torch.tensor(indices, device=rows.device)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        rows, at = self.rows, self._at.to(out.device)
        found = F.linear(x.to(rows), rows).to(out.device)
        bias = offloaded(module, "bias")
        if bias is not None:
            found = found + bias.to(found)[at]
        delta = (found - base.index_select(-1, at)) * weight
        return out.to(torch.promote_types(out.dtype, delta.dtype)).index_add(-1, at, delta)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (TokenLogits(weight, self.rows, self._at, torch.ones_like(self._at)),)


@dataclass(frozen=True, eq=False)
class TokenRows(RowPart):
    """At an embedding: ``rows`` (tokens, embedding_dim) of the ``ids`` (tokens,), in order."""

    weight: float
    rows: Tensor
    ids: Tensor

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, TokenRows]], rows: int) -> RowDelta:
        return TokenRowsByRow(parts, rows)


class TokenRowsByRow:
    """The rows of all entries one after the other, found by entry and id together."""

    _STEP = 1 << 32
    """Larger than any id."""

    def __init__(self, parts: Sequence[tuple[int, TokenRows]], rows: int) -> None:
        self.entries = Entries(parts, rows)
        self.weights = torch.tensor([part.weight for _, part in parts])
        self.rows = torch.cat([part.rows for _, part in parts])
        self.known = torch.cat([part.ids + n * self._STEP for n, (_, part) in enumerate(parts)])
        self.nbytes = size_of(self.rows, self.known)

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        ids = self.entries.take(x, repeat).to(self.rows.device, torch.int64)
        step = torch.arange(len(self.entries), device=ids.device) * self._STEP
        ids = ids + step.view(-1, *(1,) * (ids.dim() - 1))
        at = torch.searchsorted(self.known, ids).clamp(max=len(self.known) - 1)
        hit = (self.known[at] == ids).unsqueeze(-1).to(out.device)
        embedding, rows = cast(nn.Embedding, module), self.rows[at]
        if embedding.padding_idx is not None and rows.requires_grad:  # it is never trained
            padding = self.entries.take(x, repeat).to(rows.device) == embedding.padding_idx
            rows = torch.where(padding.unsqueeze(-1), rows.detach(), rows)
        found = scaled_like(module, bounded(embedding, rows))
        delta = difference(found, self.entries.take(base, repeat), self.weights)
        return self.entries.add(out, torch.where(hit, delta, torch.zeros_like(delta)), repeat)


@dataclass(frozen=True, eq=False)
class TokenLogits(StackedPart):
    """At a head: ``rows`` (tokens, in) of the outputs at ``ids`` (tokens,); ``there`` are ones, and
    zeros at the padding of a stack."""

    weight: Any
    rows: Tensor
    ids: Tensor
    there: Tensor

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        x, base = taken.x, taken.base
        device = base.device
        found = torch.bmm(x.to(self.rows).reshape(len(x), -1, x.shape[-1]), self.rows.mT).to(device)
        ids = self.ids.to(device)
        bias = offloaded(module, "bias")
        if bias is not None:
            found = found + bias.to(found)[ids].unsqueeze(1)
        flat = base.reshape(len(x), -1, base.shape[-1])
        ids = ids.unsqueeze(1).expand(found.shape)
        delta = difference(found, flat.gather(-1, ids), self.weight)
        delta = delta * self.there.to(device).unsqueeze(1)
        return delta.new_zeros(flat.shape).scatter_add(-1, ids, delta)


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the rows cannot replace rows of this live module."""
    indices = site.settings["indices"]
    if not indices:
        return "no trained tokens"
    rows = rows_of(shape)
    if rows is not None and any(not 0 <= index < rows for index in indices):
        return f"trained tokens outside its {rows} rows"
    return "duplicate trained tokens" if len(set(indices)) < len(indices) else None


def changes(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """Whether the rows differ from the base's; any do where its weight cannot be read."""
    rows, weight = roles["rows"], offloaded(module, "weight")
    if weight is None or weight.is_meta or weight.shape[1:] != rows.shape[1:]:
        return bool(rows.numel())
    at = torch.tensor(site.settings["indices"], device=weight.device)
    own = weight.detach()[at].to(rows.device)
    return not torch.equal(own, rows.to(own.dtype))


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The rows at one site; they have no dropout."""
    kind = EmbeddingRows if shape.kind is ModuleKind.EMBEDDING else HeadRows
    return kind(roles["rows"], site.settings["indices"], bool(site.settings.get("wraps")))


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """The new rows minus the old ones, and zeros elsewhere; alike for embeddings and heads."""
    new = roles["rows"]
    places = torch.tensor(site.settings["indices"], device=new.device)

    def delta(rows: slice) -> Tensor:
        start, stop, _ = rows.indices(weight.shape[0])
        found = new.new_zeros(stop - start, *weight.shape[1:])
        inside = (places >= start) & (places < stop)
        at = places[inside]
        found[at - start] = new[inside] - weight[at.to(weight.device)].to(new)
        return found

    return delta


def unmergeable(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the rows cannot be merged at this module."""
    if shape.kind is ModuleKind.EMBEDDING and cast(nn.Embedding, module).max_norm is not None:
        return "the rows of an embedding with max_norm are rescaled at each use"
    return None


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: the module's own rows; with ``init_weights: false`` (a field of
    ``TRAINABLE_TOKENS`` only) normal numbers."""
    if not new.config.get("init_weights", True):
        return {"rows": new.normal("rows")}
    weight = new.weight()
    at = torch.tensor(new.site.settings["indices"], device=weight.device)
    return {"rows": weight[at]}


METHOD = Method(
    "TRAINABLE_TOKENS",
    build,
    unsupported=unsupported,
    changes=changes,
    delta_weight=delta_weight,
    unmergeable=unmergeable,
    initial=initial,
)
