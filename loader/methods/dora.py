"""DoRA at a site (https://arxiv.org/abs/2402.09353): the weight ``W + s * BA``, each of its output
channels rescaled to a learned magnitude ``m``.

Follows PEFT 0.21, ``tuners/lora/dora.py``: with ``f = m / ||W + s * BA||`` (over the inputs, no
gradient through the norm) the delta is ``(f - 1) * (out - bias) + f * s * B(A(x))``, where ``out``
is the base's own output. While dropout acts, the base's part sees the dropped input too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor  # pyright: ignore[reportPrivateUsage]

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ..adapter.factors import RowPart
from ..routing.low_rank import LowRank, Scaling
from ..weights.placement import offloaded
from .convolutions import CONVOLUTIONS, LowRankKernel
from .deltas import Delta
from .embeddings import LowRankTable, embedded, scaled_like
from .new_site import NewSite

_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


class Magnitude:
    """``m / ||W + s * BA||`` of one site, its norm remembered for as long as nothing that it is
    made of has changed.

    ``m`` is (out,), for a convolution (1, out, 1, ..); what :meth:`over` returns is like it.
    """

    __slots__ = ("_known", "a", "b", "kind", "m", "scale")

    def __init__(self, kind: ModuleKind, m: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
        self.kind = kind
        self.m = m
        self.a = a
        self.b = b
        self.scale = scale
        self._known: tuple[Any, Tensor, Any] | None = None

    def over(self, module: nn.Module) -> Tensor:
        """The factor of each output channel, at least in float32."""
        return self.m / self._norm(module)

    def _norm(self, module: nn.Module) -> Tensor:
        weight = weight_of(module)
        if weight is None:  # the attach asked; it is gone since
            raise RuntimeError("the base's weight cannot be read")
        parts = (weight, self.a, self.b)
        if module.training or self.a.requires_grad or any(p.is_inference() for p in parts):
            return norm(self.kind, *parts, self.scale)
        try:
            now = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in parts)
        except RuntimeError:  # in an export or a transform there is no memory to tell them by
            return norm(self.kind, *parts, self.scale)
        known = self._known
        if known is not None and known[0] == now:
            return known[1]
        found = norm(self.kind, *parts, self.scale)
        # held, so that their memory is not given to another tensor, which would look the same;
        # but not a weight that was only read in for this moment
        live = getattr(module, "weight", None)
        held = parts if isinstance(live, Tensor) and not live.is_meta else parts[1:]
        self._known = (now, found, tuple(p.detach() for p in held))
        return found


def norm(kind: ModuleKind, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``||W + s * BA||`` over the inputs of each output channel, at least in float32: (out,), for
    a convolution (1, out, 1, ..). A grouped convolution's BA is laid out as PEFT lays it out."""
    # whatever the call runs in, what is remembered must do for any other
    plainly = torch.autocast(weight.device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), plainly:
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        weight, a, b = weight.to(a.device, dtype), a.to(dtype), b.to(dtype)
        if kind is ModuleKind.CONV:
            rank = a.shape[0]
            product = (b.reshape(-1, rank) @ a.reshape(rank, -1)).reshape(weight.shape)
            whole = weight + scale * product
            return whole.norm(p=2, dim=tuple(range(1, whole.dim())), keepdim=True).transpose(1, 0)
        if kind is not ModuleKind.LINEAR:  # Conv1D and embeddings keep (in, out)
            weight = weight.t()
        return torch.linalg.norm(torch.addmm(weight, b, a, alpha=scale), dim=1)


def weight_of(module: nn.Module) -> Tensor | None:
    """The module's weight as plain floating-point numbers, offloaded or not; ``None`` where it is
    quantised, or cannot be read."""
    weight = offloaded(module, "weight")
    if weight is None or weight.is_meta or weight.dtype not in _FLOATS:
        return None
    return weight if type(weight.data) in (Tensor, FakeTensor) else None


class OnWeight(ABC):
    """What the three kinds of factors share. ``stand_on`` is told where an adapter brings the
    whole module too (a resized embedding): its weight is the one that is rescaled."""

    __slots__ = ("_stands_on", "a", "b", "dropout", "magnitude", "scale")

    def __init__(
        self, kind: ModuleKind, roles: Mapping[str, Tensor], scale: float, dropout: float
    ) -> None:
        embedding = kind is ModuleKind.EMBEDDING
        self.a = roles["embedding_A" if embedding else "A"]
        self.b = roles["embedding_B" if embedding else "B"]
        self.scale = scale
        self.dropout = dropout
        self.magnitude = Magnitude(kind, roles["magnitude"], self.a, self.b, scale)
        self._stands_on: nn.Module | None = None

    def stand_on(self, module: nn.Module) -> None:
        self._stands_on = module

    @abstractmethod
    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        """See ``Factors``."""

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        """The low-rank factors, their outputs rescaled, and the rescaling of the base's output."""
        if self.dropout and module.training:
            return None
        owner = self._owner(module)
        factor = self.magnitude.over(owner).flatten()
        gain = (factor - 1) * weight
        embedding = isinstance(self, DoraEmbeddingFactors)
        bias = None if embedding else offloaded(owner, "bias")
        shift = None if bias is None else -gain * bias.detach().to(gain)
        scale = (factor * (self.scale * weight)).view(-1, *(1,) * (self.b.dim() - 1))
        live = getattr(owner, "weight", None)
        of = [t for t in (live, bias) if isinstance(t, Tensor) and not t.is_meta]
        rescaled = Scaling(gain, shift, not isinstance(self, DoraConvFactors), tuple(of))
        return self._low_rank(self.b * scale), rescaled

    @abstractmethod
    def _low_rank(self, b: Tensor) -> RowPart:
        """A with another B."""

    def _owner(self, module: nn.Module) -> nn.Module:
        return module if self._stands_on is None else self._stands_on


class DoraLinearFactors(OnWeight):
    """At a linear module: A (r, in), B (out, r), magnitude (out,)."""

    __slots__ = ("kind",)

    def __init__(
        self, kind: ModuleKind, roles: Mapping[str, Tensor], scale: float, dropout: float = 0.0
    ) -> None:
        super().__init__(kind, roles, scale, dropout)
        self.kind = kind

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        owner = self._owner(module)
        x = x.to(self.a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
            whole = cast(Tensor, weight_of(owner)).to(x)
            plain = F.linear(x, whole if self.kind is ModuleKind.LINEAR else whole.t())
        else:
            plain = _without_bias(owner, base.to(x.device), 0)
        factor = self.magnitude.over(owner)
        low = F.linear(F.linear(x, self.a), self.b)
        delta = (factor - 1) * plain + (factor * self.scale) * low
        return out + (delta * weight).to(out.device)

    def _low_rank(self, b: Tensor) -> RowPart:
        return LowRank(self.a, b)


class DoraEmbeddingFactors(OnWeight):
    """At an embedding: A (r, num_embeddings), B (embedding_dim, r), magnitude (embedding_dim,)."""

    __slots__ = ()

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        embedding = cast(nn.Embedding, module)
        factor = self.magnitude.over(self._owner(module))
        low = embedded(embedding, x, self.a) @ self.b.t()
        low = scaled_like(embedding, low * self.scale)
        delta = (factor - 1) * base.to(low.device) + factor * low
        return out + (delta * weight).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if cast(nn.Embedding, module).scale_grad_by_freq and self.a.requires_grad:
            return None
        return super().parts(module, weight)

    def _low_rank(self, b: Tensor) -> RowPart:
        return LowRankTable(self.a, b)


class DoraConvFactors(OnWeight):
    """At a convolution: A (r, in, *kernel), B (out, r / groups, 1, ..), and the magnitude
    (1, out, 1, ..)."""

    __slots__ = ()

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        conv = cast(nn.Conv2d, module)
        owner = self._owner(module)
        convolve = CONVOLUTIONS[self.a.dim()]
        x = x.to(self.a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
            whole = cast(Tensor, weight_of(owner)).to(x)
            plain = convolve(x, whole, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        else:
            plain = _without_bias(owner, base.to(x.device), len(conv.kernel_size))
        factor = self.magnitude.over(owner)
        if plain.dim() == len(conv.kernel_size) + 1:  # without a batch
            factor = factor.squeeze(0)
        low = convolve(x, self.a, None, conv.stride, conv.padding)
        low = convolve(low, self.b, None, groups=conv.groups)
        delta = (factor - 1) * plain + (factor * self.scale) * low
        return out + (delta * weight).to(out.device)

    def _low_rank(self, b: Tensor) -> RowPart:
        return LowRankKernel(self.a, b)


def _without_bias(module: nn.Module, out: Tensor, after: int) -> Tensor:
    """The module's output before its bias was added; ``after`` dimensions follow the channels."""
    bias = offloaded(module, "bias")
    if bias is None:
        return out
    return out - bias.detach().to(out).view(-1, *(1,) * after)


def first_magnitude(new: NewSite, factors: Mapping[str, Tensor]) -> Tensor:
    """The norms of the weight with these ``factors``: with them the adapter changes no size yet."""
    kind = new.sizes.kind
    a, b = (
        factors[f"embedding_{one}" if kind is ModuleKind.EMBEDDING else one] for one in ("A", "B")
    )
    weight = cast(Tensor, weight_of(new.module))  # `unsupported` asked
    return norm(kind, weight, a, b, new.site.scale).contiguous()


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why DoRA cannot sit on this live module: it needs the weight itself."""
    if weight_of(module) is None:
        return (
            f"DoRA needs the weight of this {type(module).__name__}, which is quantised or absent"
        )
    return None


def alters(
    site: SitePlan, kind: ModuleKind, roles: Mapping[str, Tensor], module: nn.Module
) -> bool:
    """Whether the weight that DoRA makes is another one than the base's: not where B is zero and
    the magnitude is the base's own, as training begins."""
    weight = weight_of(module)
    a = roles["embedding_A" if kind is ModuleKind.EMBEDDING else "A"]
    b = roles["embedding_B" if kind is ModuleKind.EMBEDDING else "B"]
    if weight is None or (site.scale and bool(b.any()) and bool(a.any())):
        return True
    m = roles["magnitude"].float()
    own = norm(kind, weight.to(a.device), a * 0, b * 0, 0.0).to(m)
    return own.shape != m.shape or not torch.allclose(m, own, rtol=1e-6, atol=0.0)


def build(kind: ModuleKind, roles: Mapping[str, Tensor], scale: float, dropout: float) -> OnWeight:
    """The factors at one site, from placed tensors by role."""
    if kind is ModuleKind.EMBEDDING:
        return DoraEmbeddingFactors(kind, roles, scale, 0.0)  # PEFT has no dropout there
    if kind is ModuleKind.CONV:
        return DoraConvFactors(kind, roles, scale, dropout)
    return DoraLinearFactors(kind, roles, scale, dropout)


_PIECE = 1 << 22
"""Values of a weight that are widened at a time for its norm."""


def delta_weight(kind: ModuleKind, weight: Tensor, magnitude: Tensor, product: Delta) -> Delta:
    """``f * (W + s * BA) - W`` with ``f = m / ||W + s * BA||``, the stored weight's rows at a
    time; ``product`` are those of ``s * BA``."""

    def whole(rows: slice) -> tuple[Tensor, Tensor]:
        added = product(rows)
        old = weight[rows].to(added)
        return old, added.add_(old)

    m = magnitude.flatten()
    if kind in (ModuleKind.CONV1D, ModuleKind.EMBEDDING):  # (in, out): a norm runs over all rows
        squares = m.new_zeros(m.shape, dtype=torch.float64)
        step = max(1, _PIECE // weight.shape[1])
        for start in range(0, weight.shape[0], step):
            squares += whole(slice(start, start + step))[1].square().sum(0, dtype=torch.float64)
        factor = m / squares.sqrt().to(m)

        def by_columns(rows: slice) -> Tensor:
            old, new = whole(rows)
            return new.mul_(factor).sub_(old)

        return by_columns

    def by_rows(rows: slice) -> Tensor:
        old, new = whole(rows)
        factor = m[rows] / torch.linalg.vector_norm(new.flatten(1), dim=1)
        return new.mul_(factor.view(-1, *(1,) * (new.dim() - 1))).sub_(old)

    return by_rows


def on_replacement(factors: object, replacement: nn.Module) -> None:
    """The weight that DoRA rescales is then the adapter's own."""
    if isinstance(factors, OnWeight):
        factors.stand_on(replacement)
