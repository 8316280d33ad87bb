"""LoRA at a site (https://arxiv.org/abs/2106.09685): ``out + scale * B(A(x))``.

Follows PEFT 0.21, ``tuners/lora/layer.py``: the input is cast to the factors' dtype, the sum is
cast back to the output's; convolutions use the base's kernel, stride and padding for A and a
kernel of 1 for B; embeddings keep ``padding_idx``, ``max_norm`` and ``embed_scale``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ...registry.methods.lora_config import init_of
from ...registry.methods.lora_variants import ACTIVATED, BLOCKS
from ..adapter.factors import Factors, RowPart
from ..base.layout import shape_of_module
from ..routing.low_rank import Scaling
from . import dora
from .activated import ActivatedFactors
from .block_diagonal import BlockFactors, in_full
from .convolutions import CONVOLUTIONS, LowRankKernel
from .deltas import Delta, Roles, pads_differently, product_rows
from .embeddings import LowRankTable, embedded, scaled_like
from .linear import LinearFactors
from .method import Method
from .new_site import NewSite


class EmbeddingFactors:
    """At an embedding: A (r, num_embeddings), B (embedding_dim, r)."""

    __slots__ = ("a", "b", "scale")

    def __init__(self, roles: Roles, scale: float) -> None:
        self.a = roles["embedding_A"]
        self.b = roles["embedding_B"]
        self.scale = scale

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        embedding = cast(nn.Embedding, module)
        low = embedded(embedding, x, self.a)
        delta = scaled_like(embedding, (low @ self.b.t()) * (self.scale * weight))
        return out + delta.to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if cast(nn.Embedding, module).scale_grad_by_freq and self.a.requires_grad:
            return None
        return (LowRankTable(self.a, self.b * (self.scale * weight)),)


class ConvFactors:
    """At a convolution: A (r, in, *kernel), B (out, r / groups, 1, ...), B's bias (out)."""

    __slots__ = ("a", "b", "bias", "convolve", "dropout", "scale")

    def __init__(self, roles: Roles, scale: float, dropout: float = 0.0) -> None:
        self.a = roles["A"]
        self.b = roles["B"]
        self.bias = roles.get("B_bias")
        self.scale = scale
        self.dropout = dropout
        self.convolve = CONVOLUTIONS[self.a.dim()]

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        conv = cast(nn.Conv2d, module)
        if x.dtype is not self.a.dtype or x.device != self.a.device:
            x = x.to(self.a)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        low = self.convolve(x, self.a, None, conv.stride, conv.padding)
        delta = self.convolve(low, self.b, self.bias, groups=conv.groups)
        return out + (delta * (self.scale * weight)).to(out.device)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        if self.dropout and module.training:
            return None
        scale = self.scale * weight
        low = LowRankKernel.from_factors(self.a, self.b * scale)
        if self.bias is None:
            return (low,)
        return low, Scaling(shift=self.bias * scale, channels_last=False)


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why LoRA cannot run at this live module."""
    if shape.kind is ModuleKind.CONV:
        conv = cast(nn.Conv2d, module)
        if any(step != 1 for step in conv.dilation) and conv.padding != "same":
            return f"LoRA does not support a convolution with dilation {tuple(conv.dilation)}"
        if site.rank % shape.groups:
            return f"the rank must be divisible by the convolution's {shape.groups} groups"
    return dora.unsupported(site, module, shape) if "magnitude" in site.tensors else None


def changes(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """Whether the delta is not zero at this module."""
    if "magnitude" in roles:
        return dora.changes(site, shape_of_module(module).kind, roles, module)
    if site.scale == 0:
        return False
    if (bias := roles.get("B_bias")) is not None and bool(bias.any()):
        return True
    a = roles["A"] if "A" in roles else roles["embedding_A"]
    b = roles["B"] if "B" in roles else roles["embedding_B"]
    return bool(b.any()) and bool(a.any())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site."""
    if "magnitude" in roles:
        return dora.build(shape.kind, roles, site.scale, dropout)
    if shape.kind is ModuleKind.EMBEDDING:
        return EmbeddingFactors(roles, site.scale)  # PEFT has no dropout there
    if shape.kind is ModuleKind.CONV:
        return ConvFactors(roles, site.scale, dropout)
    plain = LinearFactors(roles, site.scale, dropout)
    if BLOCKS in site.settings:
        return BlockFactors(plain, site.settings[BLOCKS])
    if ACTIVATED in site.settings:
        return ActivatedFactors(plain, site.settings[ACTIVATED])
    return plain


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation, by ``init_lora_weights``.

    True: A uniform within 1/sqrt(fan-in), as ``nn.Linear``'s weight, and B zero; at an embedding A
    zero and B normal. ``gaussian``: A normal with deviation 1/r. ``orthogonal``: A and B from the
    odd and the even rows of one orthogonal matrix
    (https://datta0.github.io/posts/rethink-lora-init). ``mica``: A zero, B the left singular
    vectors of the weight's smallest values, which are not trained
    (https://arxiv.org/abs/2604.01694). False (or null): nothing is zero, so that the adapter acts
    from the start. DoRA's magnitude is the norm of the weight with these factors.
    """
    how = init_of(new.config)
    if "embedding_A" in new.shapes:
        made = {"embedding_A": new.normal("embedding_A"), "embedding_B": new.normal("embedding_B")}
        if how == "mica":
            made = _minor(new, "embedding_A", "embedding_B")
        elif how:
            made = {
                "embedding_A": new.zeros("embedding_A"),
                "embedding_B": new.normal("embedding_B"),
            }
    else:
        made = _pair(new, how)
    if "magnitude" in new.shapes:
        made["magnitude"] = dora.first_magnitude(new, made)
    return made


def _pair(new: NewSite, how: object) -> dict[str, Tensor]:
    if cut := new.site.settings.get(BLOCKS):
        return _cut_pair(new, how, cut)
    made = {"A": new.uniform("A"), "B": new.uniform("B")}
    if "B_bias" in new.shapes:
        fan_in = math.prod(new.shapes["B"][1:])
        made["B_bias"] = new.uniform_within("B_bias", 1 / math.sqrt(fan_in))
    if how == "orthogonal":
        return {**made, **_orthogonal(new)}
    if how == "mica":
        return {**made, **_minor(new, "A", "B")}
    if not how:
        return made
    made["A"] = new.normal("A", 1 / new.site.rank) if how == "gaussian" else new.uniform("A")
    return {role: value if role == "A" else new.zeros(role) for role, value in made.items()}


def _cut_pair(new: NewSite, how: object, cut: Mapping[str, int]) -> dict[str, Tensor]:
    """Blocks of A uniform within sqrt(6 / fan-in), blocks of B zero (PEFT 0.21.2,
    ``BlockDiagonalLinear``); a factor without blocks as in other LoRAs."""
    site, sizes = new.site._replace(settings={}), new.sizes
    inner, outer = sizes.in_features or 0, sizes.out_features or 0
    shapes = {"A": (site.rank, inner), "B": (outer, site.rank)}
    made = _pair(dataclasses.replace(new, site=site, shapes=shapes), how)
    if "A" in cut:
        blocks = torch.empty(new.shapes["A"])
        made["A"] = nn.init.kaiming_uniform_(blocks, generator=new.generator)
    if "B" in cut:
        made["B"] = new.zeros("B")
    return made


def _minor(new: NewSite, a: str, b: str) -> dict[str, Tensor]:
    """By role: zeros (r, in), and the last r left singular vectors of the weight (out, r)."""
    weight = new.weight().float()
    if new.sizes.kind is not ModuleKind.LINEAR:  # Conv1D and embeddings keep (in, out)
        weight = weight.t()
    vectors = torch.linalg.svd(weight, full_matrices=False).U
    return {a: new.zeros(a), b: vectors[:, -new.site.rank :].contiguous()}


def _orthogonal(new: NewSite) -> Roles:
    """At a linear module: A (r, in), B (out, r), with r even."""
    (rank, inner), outer = new.shapes["A"], new.shapes["B"][0]
    draw = functools.partial(torch.randn, generator=new.generator)
    basis = torch.linalg.qr(draw(rank, rank)).Q
    first = draw(inner, rank // 2) @ basis[0::2]
    second = draw(rank // 2, outer).t() @ basis[1::2]
    return {"A": (first.t() / 10).contiguous(), "B": (second / 10).contiguous()}


INPUT_ROLES = frozenset({"A", "B", "B_bias", "embedding_A", "embedding_B", "velora"})
"""With these alone, the delta depends on the input and not on the base's weight or output."""


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``scale * B @ A``; with a magnitude that of :func:`.dora.delta_weight`."""
    product = _product(site, shape, weight, roles)
    if "magnitude" not in roles:
        return product
    return dora.delta_weight(shape.kind, weight, roles["magnitude"], product)


def _product(site: SitePlan, shape: ModuleShape, weight: Tensor, roles: Roles) -> Delta:
    if shape.kind is ModuleKind.EMBEDDING:  # (num_embeddings, embedding_dim)
        return product_rows(roles["embedding_B"], roles["embedding_A"], site.scale, True)
    cut = site.settings.get(BLOCKS, {})
    a, b = (in_full(roles[role], cut.get(role, 1)) for role in "AB")
    if shape.kind is not ModuleKind.CONV:
        return product_rows(b, a, site.scale, shape.kind is ModuleKind.CONV1D)
    flat = product_rows(b.flatten(1), a.flatten(1), site.scale, False)
    return lambda rows: flat(rows).view(-1, *weight.shape[1:])  # (out, in, *kernel)


def delta_bias(
    site: SitePlan, shape: ModuleShape, bias: Tensor | None, roles: Roles
) -> Tensor | None:
    """``scale`` times B's own bias (``lora_bias``), if there is one."""
    found = roles.get("B_bias")
    return None if found is None else found * site.scale


def unmergeable(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the delta cannot be merged at this module."""
    if ACTIVATED in site.settings:
        return "an aLoRA acts on some tokens only"
    if more := sorted(site.tensors.keys() - INPUT_ROLES - {"magnitude"}):
        return f"with {' and '.join(more)} it is not a product of two factors"
    if shape.kind is ModuleKind.EMBEDDING and cast(nn.Embedding, module).max_norm is not None:
        return "the rows of an embedding with max_norm are rescaled at each use"
    if shape.kind is ModuleKind.CONV:
        conv = cast(nn.Conv2d, module)
        if shape.groups > 1:
            return "the factors mix the channels of all groups, the weight does not"
        if any(step != 1 for step in conv.dilation) and any(size != 1 for size in shape.kernel):
            return "the base's kernel is dilated, the factors' kernel is not"
    return pads_differently(site, module, shape)


def is_pair(site: SitePlan) -> bool:
    """Whether the site is plain LoRA: two factors, and B's bias where there is one."""
    plain = site.tensors.keys() <= INPUT_ROLES - {"velora"}
    return plain and site.settings.keys().isdisjoint({ACTIVATED, BLOCKS})


METHOD = Method(
    "LORA",
    build,
    unsupported=unsupported,
    changes=changes,
    on_replacement=dora.on_replacement,
    delta_weight=delta_weight,
    delta_bias=delta_bias,
    unmergeable=unmergeable,
    live_names={"magnitude": "lora_magnitude_vector.{adapter}.weight"},
    input_roles=INPUT_ROLES,
    is_pair=is_pair,
    initial=initial,
)
