"""LoRA at a site (https://arxiv.org/abs/2106.09685): ``out + scale * B(A(x))``.

Follows PEFT 0.21, ``tuners/lora/layer.py``: the input is cast to the factors' dtype, the sum is
cast back to the output's; convolutions use the base's kernel, stride and padding for A and a
kernel of 1 for B; embeddings keep ``padding_idx``, ``max_norm`` and ``embed_scale``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ...registry.facts import ModuleKind, ModuleShape, SitePlan
from ...registry.methods.lora import shapes as lora_shapes
from ..gather import LowRank
from ..sites import Factors
from .new_site import NewSite

Shape = tuple[int, ...]


class LinearFactors:
    """At a linear module: A (r, in), B (out, r), and B's bias (out) where there is one."""

    __slots__ = ("a", "b", "bias", "dropout", "scale")

    def __init__(
        self, roles: Mapping[str, torch.Tensor], scale: float, dropout: float = 0.0
    ) -> None:
        self.a = roles["A"]
        self.b = roles["B"]
        self.bias = roles.get("B_bias")
        self.scale = scale
        self.dropout = dropout

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        a, b = self.a, self.b
        if x.dtype is not a.dtype or x.device != a.device:
            x = x.to(a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        low = F.linear(x, a)
        if low.dtype is b.dtype is out.dtype and self.bias is None and x.device == out.device:
            # one kernel for the product, the scale and the sum
            flat = torch.addmm(
                out.reshape(-1, b.shape[0]),
                low.reshape(-1, b.shape[1]),
                b.t(),
                alpha=self.scale * weight,
            )
            return flat.view(out.shape)
        return out + (F.linear(low, b, self.bias) * (self.scale * weight)).to(out.device)

    def low_rank(self, module: nn.Module, weight: float) -> LowRank | None:
        if self.dropout and module.training:
            return None
        scale = self.scale * weight
        return LowRank(self.a, self.b * scale, None if self.bias is None else self.bias * scale)


class EmbeddingFactors:
    """At an embedding: A (r, num_embeddings), B (embedding_dim, r)."""

    __slots__ = ("a", "b", "scale")

    def __init__(self, roles: Mapping[str, torch.Tensor], scale: float) -> None:
        self.a = roles["embedding_A"]
        self.b = roles["embedding_B"]
        self.scale = scale

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        embedding = cast(nn.Embedding, module)
        low = F.embedding(
            x.to(self.a.device),
            self.a.t(),
            padding_idx=embedding.padding_idx,
            scale_grad_by_freq=embedding.scale_grad_by_freq,
        )
        if embedding.max_norm is not None:
            # F.embedding would renormalise A itself, in place and for good
            norms = low.norm(p=embedding.norm_type, dim=-1, keepdim=True).detach()
            factor = embedding.max_norm / (norms + 1e-7)
            low = torch.where(norms > embedding.max_norm, low * factor, low)
        delta = (low @ self.b.t()) * (self.scale * weight)
        embed_scale = getattr(module, "embed_scale", None)
        if embed_scale is not None:  # the module scaled `out` by it (Gemma's embeddings)
            if isinstance(embed_scale, torch.Tensor):
                embed_scale = embed_scale.to(delta)
            delta = delta * embed_scale
        return out + delta.to(out.device)


class ConvFactors:
    """At a convolution: A (r, in, *kernel), B (out, r / groups, 1, ...), B's bias (out)."""

    __slots__ = ("a", "b", "bias", "convolve", "dropout", "scale")

    def __init__(
        self, roles: Mapping[str, torch.Tensor], scale: float, dropout: float = 0.0
    ) -> None:
        self.a = roles["A"]
        self.b = roles["B"]
        self.bias = roles.get("B_bias")
        self.scale = scale
        self.dropout = dropout
        self.convolve = _CONVOLUTIONS[self.a.dim()]

    def add(
        self,
        module: nn.Module,
        x: torch.Tensor,
        base: torch.Tensor,
        out: torch.Tensor,
        weight: float,
    ) -> torch.Tensor:
        conv = cast(nn.Conv2d, module)
        if x.dtype is not self.a.dtype or x.device != self.a.device:
            x = x.to(self.a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        low = self.convolve(x, self.a, None, conv.stride, conv.padding)
        delta = self.convolve(low, self.b, self.bias, groups=conv.groups)
        return out + (delta * (self.scale * weight)).to(out.device)


_CONVOLUTIONS: Mapping[int, Callable[..., torch.Tensor]] = {
    3: F.conv1d,
    4: F.conv2d,
    5: F.conv3d,
}


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why LoRA cannot sit on this live module, beyond what its sizes tell."""
    if shape.kind is ModuleKind.CONV:
        conv = cast(nn.Conv2d, module)
        if any(step != 1 for step in conv.dilation) and conv.padding != "same":
            return f"a convolution with dilation {tuple(conv.dilation)} cannot have LoRA factors"
        if site.rank % shape.groups:
            return f"a convolution of {shape.groups} groups needs a rank divisible by it"
    return None


def changes(site: SitePlan, roles: Mapping[str, torch.Tensor]) -> bool:
    """Whether the delta is anything but zero."""
    if site.scale == 0:
        return False
    if (bias := roles.get("B_bias")) is not None and bool(bias.any()):
        return True
    a = roles["A"] if "A" in roles else roles["embedding_A"]
    b = roles["B"] if "B" in roles else roles["embedding_B"]
    return bool(b.any()) and bool(a.any())


def build(
    site: SitePlan, shape: ModuleShape, roles: Mapping[str, torch.Tensor], dropout: float
) -> Factors:
    """The factors at one site, from placed tensors by role."""
    if shape.kind is ModuleKind.EMBEDDING:
        return EmbeddingFactors(roles, site.scale)  # PEFT has no dropout there
    if shape.kind is ModuleKind.CONV:
        return ConvFactors(roles, site.scale, dropout)
    return LinearFactors(roles, site.scale, dropout)


def initial(new: NewSite) -> Mapping[str, torch.Tensor]:
    """PEFT's initialisation, in float32 on the CPU, by ``init_lora_weights``.

    True (or null): A as ``nn.Linear`` begins, uniform within 1/sqrt(fan-in), and B zero; at an
    embedding A zero and B normal. ``gaussian``: A normal with deviation 1/r. ``orthogonal``: A and
    B from the odd and the even rows of one orthogonal matrix
    (https://datta0.github.io/posts/rethink-lora-init). False: nothing is zero, so that the adapter
    acts from the start.
    """
    site = SitePlan(new.name, "LORA", {}, new.rank, 1.0, 1.0)
    shapes = lora_shapes(site, new.shape, {})
    how = new.config.get("init_lora_weights", True)
    how = how.lower() if isinstance(how, str) else how
    if new.shape.kind is ModuleKind.EMBEDDING:
        a, b = torch.zeros(shapes["embedding_A"]), torch.randn(shapes["embedding_B"])
        return {"embedding_A": torch.randn_like(a) if how is False else a, "embedding_B": b}
    a, b = torch.empty(shapes["A"]), torch.zeros(shapes["B"])
    if how == "orthogonal":
        return _orthogonal(a, b)
    if how == "gaussian":
        nn.init.normal_(a, std=1 / new.rank)
    else:
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    if how is False:
        nn.init.kaiming_uniform_(b, a=math.sqrt(5))
    return {"A": a, "B": b}


def _orthogonal(a: torch.Tensor, b: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """At a linear module: A (r, in), B (out, r), with r even."""
    rank = a.shape[0]
    basis = torch.linalg.qr(torch.randn(rank, rank)).Q
    first = torch.randn(a.shape[1], rank // 2) @ basis[0::2]
    second = torch.randn(b.shape[0], rank // 2) @ basis[1::2]
    return {"A": (first.t() / 10).contiguous(), "B": second / 10}


PARAMETERS: Mapping[str, str] = {
    "A": "lora_A.{adapter}.weight",
    "B": "lora_B.{adapter}.weight",
    "B_bias": "lora_B.{adapter}.bias",
    "embedding_A": "lora_embedding_A.{adapter}",
    "embedding_B": "lora_embedding_B.{adapter}",
}
"""PEFT's live names of the roles, after the module's own."""
