"""DoRA at a site (https://arxiv.org/abs/2402.09353): the weight ``W + s * BA``, each of its output
channels rescaled to a learned magnitude ``m``.

Follows PEFT 0.21, ``tuners/lora/dora.py``: with ``f = m / ||W + s * BA||`` (over the inputs, no
gradient through the norm) the delta is ``(f - 1) * (out - bias) + f * s * B(A(x))``, where ``out``
is the base's own output. While dropout acts, the base's part sees the dropped input too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from .deltas import Delta, Roles
from .embeddings import LowRankTable, embedded, scaled_like
from .new_site import NewSite

_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


def norm(kind: ModuleKind, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``||W + s * BA||`` over the inputs of each output channel, at least in float32: (out,), for
    a convolution (1, out, 1, ..). A grouped convolution's BA has PEFT's layout."""
    # the norm is kept for other calls, so it must not depend on this call's modes
    plainly = torch.autocast(weight.device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), plainly:
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        weight, a, b = weight.to(a.device, dtype), a.to(dtype), b.to(dtype)
        if kind is ModuleKind.CONV:
            rank = a.shape[0]
            product = (b.reshape(-1, rank) @ a.reshape(rank, -1)).reshape(weight.shape)
            total = weight + scale * product
            return total.norm(p=2, dim=tuple(range(1, total.dim())), keepdim=True).transpose(1, 0)
        if kind is not ModuleKind.LINEAR:  # Conv1D and embeddings keep (in, out)
            weight = weight.t()
        return torch.linalg.norm(torch.addmm(weight, b, a, alpha=scale), dim=1)


def weight_of(module: nn.Module) -> Tensor | None:
    """The module's weight as a floating-point tensor, offloaded or not; ``None`` if it is quantised
    or cannot be read."""
    weight = offloaded(module, "weight")
    if weight is None or weight.is_meta or weight.dtype not in _FLOATS:
        return None
    return weight if type(weight.data) in (Tensor, FakeTensor) else None


class DoraFactors(ABC):
    """What the three kinds of factors share. ``replacement`` is the module with which the same
    adapter replaces theirs (a resized embedding); its weight is then the rescaled one."""

    __slots__ = ("_known", "a", "b", "dropout", "kind", "magnitude", "replacement", "scale")

    def __init__(self, kind: ModuleKind, roles: Roles, scale: float, dropout: float) -> None:
        self.kind = kind
        self.a, self.b = _pair(kind, roles)
        self.magnitude = roles["magnitude"]
        self.scale = scale
        self.dropout = dropout
        self.replacement: nn.Module | None = None
        self._known: tuple[Any, Tensor, Any] | None = None

    @abstractmethod
    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        """See ``Factors``."""

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        """The low-rank factors, their outputs rescaled, and the rescaling of the base's output."""
        if self.dropout and module.training:
            return None
        owner, kind = self._owner(module), self.kind
        factor = self._factor(owner).flatten()
        gain = (factor - 1) * weight
        bias = None if kind is ModuleKind.EMBEDDING else offloaded(owner, "bias")
        shift = None if bias is None else -gain * bias.detach().to(gain)
        scale = (factor * (self.scale * weight)).view(-1, *(1,) * (self.b.dim() - 1))
        live = getattr(owner, "weight", None)
        of = [t for t in (live, bias) if isinstance(t, Tensor) and not t.is_meta]
        rescaled = Scaling(gain, shift, kind is not ModuleKind.CONV, tuple(of))
        return self._low_part(self.b * scale), rescaled

    @abstractmethod
    def _low(self, module: nn.Module, x: Tensor) -> Tensor:
        """``B(A(x))``."""

    @abstractmethod
    def _low_part(self, b: Tensor) -> RowPart:
        """The same with another B, for mixed batches."""

    def _owner(self, module: nn.Module) -> nn.Module:
        return module if self.replacement is None else self.replacement

    def _factor(self, module: nn.Module) -> Tensor:
        """``m / ||W + s * BA||`` for this module's weight, like the magnitude, at least in
        float32."""
        return self.magnitude / self._norm(module)

    def _norm(self, module: nn.Module) -> Tensor:
        """The norm, which is kept until one of its inputs changes."""
        weight = weight_of(module)
        if weight is None:  # it could be read at attach
            raise RuntimeError("the base's weight cannot be read")
        parts = (weight, self.a, self.b)
        if module.training or self.a.requires_grad or any(p.is_inference() for p in parts):
            return norm(self.kind, *parts, self.scale)
        try:
            now = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in parts)
        except RuntimeError:  # in an export or a transform they have no address
            return norm(self.kind, *parts, self.scale)
        known = self._known
        if known is not None and known[0] == now:
            return known[1]
        found = norm(self.kind, *parts, self.scale)
        # held, so that no other tensor gets their address and looks the same; but not a weight that
        # was read from disk for this call
        live = getattr(module, "weight", None)
        held = parts if isinstance(live, Tensor) and not live.is_meta else parts[1:]
        self._known = (now, found, tuple(p.detach() for p in held))
        return found


class DoraLinearFactors(DoraFactors):
    """At a linear module: A (r, in), B (out, r), magnitude (out,)."""

    __slots__ = ()

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        owner = self._owner(module)
        after = self.a.dim() - 2  # dimensions after the channels
        x = x.to(self.a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
            plain = self._base(module, x, cast(Tensor, weight_of(owner)).to(x))
        else:
            plain = _without_bias(owner, base.to(x.device), after)
        factor = self._factor(owner)
        if after and plain.dim() == after + 1:  # without a batch
            factor = factor.squeeze(0)
        delta = (factor - 1) * plain + (factor * self.scale) * self._low(module, x)
        return out + (delta * weight).to(out.device)

    def _base(self, module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
        """The module's output for ``x`` with this ``weight``, without its bias."""
        return F.linear(x, weight if self.kind is ModuleKind.LINEAR else weight.t())

    def _low(self, module: nn.Module, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a), self.b)

    def _low_part(self, b: Tensor) -> RowPart:
        return LowRank(self.a, b)


class DoraEmbeddingFactors(DoraFactors):
    """At an embedding: A (r, num_embeddings), B (embedding_dim, r), magnitude (embedding_dim,).
    PEFT has no dropout there."""

    __slots__ = ()

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        factor = self._factor(self._owner(module))
        low = scaled_like(module, self._low(module, x) * self.scale)
        delta = (factor - 1) * base.to(low.device) + factor * low
        return out + (delta * weight).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if cast(nn.Embedding, module).scale_grad_by_freq and self.a.requires_grad:
            return None
        return super().parts(module, weight)

    def _low(self, module: nn.Module, x: Tensor) -> Tensor:
        return embedded(cast(nn.Embedding, module), x, self.a) @ self.b.t()

    def _low_part(self, b: Tensor) -> RowPart:
        return LowRankTable(self.a, b)


class DoraConvFactors(DoraLinearFactors):
    """At a convolution: A (r, in, *kernel), B (out, r / groups, 1, ..), and the magnitude
    (1, out, 1, ..)."""

    __slots__ = ()

    def _base(self, module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
        conv, convolve = cast(nn.Conv2d, module), CONVOLUTIONS[self.a.dim()]
        return convolve(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _low(self, module: nn.Module, x: Tensor) -> Tensor:
        conv, convolve = cast(nn.Conv2d, module), CONVOLUTIONS[self.a.dim()]
        low = convolve(x, self.a, None, conv.stride, conv.padding)
        return convolve(low, self.b, None, groups=conv.groups)

    def _low_part(self, b: Tensor) -> RowPart:
        return LowRankKernel.from_factors(self.a, b)


def _without_bias(module: nn.Module, out: Tensor, after: int) -> Tensor:
    """The module's output before its bias was added; ``after`` dimensions follow the channels."""
    bias = offloaded(module, "bias")
    if bias is None:
        return out
    return out - bias.detach().to(out).view(-1, *(1,) * after)


def first_magnitude(new: NewSite, factors: Roles) -> Tensor:
    """The norms of the weight with these ``factors``, with which nothing is rescaled yet."""
    kind = new.sizes.kind
    a, b = _pair(kind, factors)
    weight = cast(Tensor, weight_of(new.module))  # `unsupported` checked it
    return norm(kind, weight, a, b, new.site.scale).contiguous()


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why DoRA cannot run at this live module: it needs the weight itself."""
    if weight_of(module) is None:
        return (
            f"DoRA needs the weight of this {type(module).__name__}, which is quantised or absent"
        )
    return None


def changes(site: SitePlan, kind: ModuleKind, roles: Roles, module: nn.Module) -> bool:
    """Whether DoRA's weight differs from the base's. A new adapter's does not: B is zero, and the
    magnitude is the norm of the base's weight."""
    weight = weight_of(module)
    a, b = _pair(kind, roles)
    if weight is None or (site.scale and bool(b.any()) and bool(a.any())):
        return True
    m = roles["magnitude"].float()
    own = norm(kind, weight.to(a.device), a * 0, b * 0, 0.0).to(m)
    return own.shape != m.shape or not torch.allclose(m, own, rtol=1e-6, atol=0.0)


def build(kind: ModuleKind, roles: Roles, scale: float, dropout: float) -> DoraFactors:
    """The factors at one site."""
    if kind is ModuleKind.EMBEDDING:
        return DoraEmbeddingFactors(kind, roles, scale, 0.0)
    if kind is ModuleKind.CONV:
        return DoraConvFactors(kind, roles, scale, dropout)
    return DoraLinearFactors(kind, roles, scale, dropout)


def _pair(kind: ModuleKind, roles: Roles) -> tuple[Tensor, Tensor]:
    """A and B."""
    prefix = "embedding_" if kind is ModuleKind.EMBEDDING else ""
    return roles[f"{prefix}A"], roles[f"{prefix}B"]


_PIECE = 1 << 22
"""How many values of a weight are widened at a time for its norm."""


def delta_weight(kind: ModuleKind, weight: Tensor, magnitude: Tensor, product: Delta) -> Delta:
    """``f * (W + s * BA) - W`` with ``f = m / ||W + s * BA||``, some rows of the stored weight at a
    time; ``product`` gives those of ``s * BA``."""

    def old_and_new(rows: slice) -> tuple[Tensor, Tensor]:
        added = product(rows)
        old = weight[rows].to(added)
        return old, added.add_(old)

    m = magnitude.flatten()
    if kind in (ModuleKind.CONV1D, ModuleKind.EMBEDDING):  # (in, out): a norm runs over all rows
        squares = m.new_zeros(m.shape, dtype=torch.float64)
        step = max(1, _PIECE // weight.shape[1])
        for start in range(0, weight.shape[0], step):
            _, new = old_and_new(slice(start, start + step))
            squares += new.square().sum(0, dtype=torch.float64)
        factor = m / squares.sqrt().to(m)

        def by_columns(rows: slice) -> Tensor:
            old, new = old_and_new(rows)
            return new.mul_(factor).sub_(old)

        return by_columns

    def by_rows(rows: slice) -> Tensor:
        old, new = old_and_new(rows)
        factor = m[rows] / torch.linalg.vector_norm(new.flatten(1), dim=1)
        return new.mul_(factor.view(-1, *(1,) * (new.dim() - 1))).sub_(old)

    return by_rows


def on_replacement(factors: object, replacement: nn.Module) -> None:
    """From now on DoRA rescales the adapter's own weight."""
    if isinstance(factors, DoraFactors):
        factors.replacement = replacement
