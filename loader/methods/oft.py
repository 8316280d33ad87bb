"""OFT at a site (https://arxiv.org/abs/2306.07280): ``module(x R)``, or ``module(x) R`` at an
embedding, where R is a diagonal of rotations.

Follows PEFT 0.21, ``tuners/oft/layer.py``. At a convolution the patches of the input are rotated
and summed to an image again, with their elements in another order, and elements of several patches
counted several times. That is not a rotation, but it is what PEFT trains and computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry.files.facts import ModuleKind, ModuleShape, SitePlan
from ..adapter.factors import Factors, RowPart
from ..routing.batched import stacked
from .deltas import Delta, Roles
from .method import Method
from .new_site import NewSite
from .rerun import ChangedInput, ChangedOutput, OtherInput, difference, not_rerunnable
from .stacked_part import StackedPart, Taken


class _Rotating:
    """``r`` (blocks, size * (size - 1) / 2) are the upper triangles of skew-symmetric matrices."""

    __slots__ = ("_eps", "_kernel", "_terms", "r")

    def __init__(self, site: SitePlan, shape: ModuleShape, roles: Roles) -> None:
        self.r = roles["embedding_R" if shape.kind is ModuleKind.EMBEDDING else "R"]
        self._kernel = shape.kernel
        self._terms: int | None = site.settings["terms"]
        self._eps: float | None = site.settings["eps"]

    def changed(self, x: Tensor) -> Tensor:
        """``x`` (..., width), in the dtype of ``r``: each block of it times its rotation."""
        return _rotated(x.unsqueeze(0), self.rotation().unsqueeze(0)).squeeze(0)

    def rotation(self) -> Tensor:
        """(blocks, size, size) in the dtype of ``r``, computed in float32 at least; (1, size, size)
        if all blocks share one."""
        skew = _skew(self._angles().to(torch.promote_types(self.r.dtype, torch.float32)))
        made = _exact(skew) if self._terms is None else _series(skew, self._terms)
        return made.to(self.r.dtype)

    def _angles(self) -> Tensor:
        """``r``; if it is constrained (COFT), at most ``eps`` from 0."""
        if self._eps is None:
            return self.r
        inside = _inside(self.r.detach(), self._eps)
        if not self.r.requires_grad:
            return inside
        with torch.no_grad():  # as in PEFT: training goes on from there
            self.r.copy_(inside)
        return self.r


class InputFactors(_Rotating, ChangedInput):
    """Rotates what a linear module receives."""

    __slots__ = ()

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (RotatedInput(weight, self.rotation()),)


class PatchFactors(_Rotating, ChangedInput):
    """Rotates the patches that a convolution with a square kernel reads."""

    __slots__ = ()

    def changed(self, x: Tensor) -> Tensor:
        return _from_patches(x, self._kernel, super().changed)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (RotatedInput(weight, self.rotation(), self._kernel),)


class OutputFactors(_Rotating, ChangedOutput):
    """Rotates what an embedding returns."""

    __slots__ = ()

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...]:
        return (RotatedOutput(weight, self.rotation()),)


def _stacked(rotations: Sequence[Tensor]) -> Tensor:
    """(entries, blocks, size, size), where some have one rotation for all blocks."""
    blocks = max(len(rotation) for rotation in rotations)
    return stacked([rotation.expand(blocks, -1, -1) for rotation in rotations])


@dataclass(frozen=True, eq=False)
class RotatedInput(OtherInput):
    """The input, or its patches of a ``kernel``, times the ``rotation`` (blocks, size, size)."""

    rotation: Tensor
    kernel: tuple[int, ...] = ()
    stacked = staticmethod(_stacked)

    @property
    def kind(self) -> Hashable:
        return (type(self), self.rotation.shape[-1], self.kernel)

    def changed(self, x: Tensor) -> Tensor:
        if not self.kernel:
            return _rotated(x, self.rotation)
        entries = x.shape[:2]

        def rotated(patches: Tensor) -> Tensor:
            return _rotated(patches.unflatten(0, entries), self.rotation).flatten(0, 1)

        return _from_patches(x.flatten(0, 1), self.kernel, rotated).view(x.shape)


@dataclass(frozen=True, eq=False)
class RotatedOutput(StackedPart):
    """``delta = weight * (base rotated - base)``."""

    weight: Any
    rotation: Tensor
    stacked = staticmethod(_stacked)

    @property
    def kind(self) -> Hashable:
        return (type(self), self.rotation.shape[-1])

    def delta(self, module: nn.Module, taken: Taken) -> Tensor:
        old = taken.base
        return difference(_rotated(old, self.rotation), old, self.weight)


def _rotated(x: Tensor, rotations: Tensor) -> Tensor:
    """``x`` (entries, ..., width), each block of it times its entry's rotation."""
    entries, _, size, _ = rotations.shape
    blocks = x.to(rotations).reshape(entries, -1, x.shape[-1] // size, size).transpose(1, 2)
    rotations = rotations.expand(-1, blocks.shape[1], -1, -1)
    return (blocks @ rotations).transpose(1, 2).reshape(x.shape)


def _from_patches(
    x: Tensor, kernel: tuple[int, ...], rotated: Callable[[Tensor], Tensor]
) -> Tensor:
    """``x`` (batch, in, height, width) from its rotated patches (batch, patches, in * kernel)."""
    patches = rotated(F.unfold(x, kernel).transpose(1, 2))
    height, width = x.shape[2] - kernel[0] + 1, x.shape[3] - kernel[1] + 1
    # PEFT puts the patches' positions where fold expects the positions inside a patch
    turned = patches.view(x.shape[0], height, width, x.shape[1], -1).permute(0, 3, 1, 2, 4)
    columns = turned.reshape(x.shape[0], -1, height * width)
    return F.fold(columns, (x.shape[2], x.shape[3]), kernel)


def _skew(angles: Tensor) -> Tensor:
    """(blocks, n) upper triangles as (blocks, size, size) skew-symmetric matrices."""
    size = (1 + math.isqrt(1 + 8 * angles.shape[1])) // 2
    rows, columns = torch.triu_indices(size, size, 1, device=angles.device)
    upper = angles.new_zeros(angles.shape[0], size, size)
    upper[:, rows, columns] = angles
    return upper - upper.transpose(-1, -2)


def _exact(skew: Tensor) -> Tensor:
    """Cayley's ``(I - S) (I + S)^-1``."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(identity + skew, identity - skew, left=False)


def _series(skew: Tensor, terms: int) -> Tensor:
    """``I + 2 S + 2 S^2 + ... + 2 S^(terms - 2) + S^(terms - 1)``; 3 terms give that of 4."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    found = identity.expand_as(skew)
    if terms < 2:
        return found
    found = found + 2 * skew
    if terms == 2:
        return found
    power = skew @ skew
    found = found + 2 * power
    for _ in range(terms - 4):
        power = power @ skew
        found = found + 2 * power
    return found + power @ skew


def _inside(angles: Tensor, eps: float) -> Tensor:
    """Each block scaled down to the norm ``eps / sqrt(blocks)`` if its matrix has a larger one."""
    limit = eps / math.sqrt(angles.shape[0])
    norm = angles.norm(dim=1, keepdim=True) * math.sqrt(2)  # of both triangles
    return torch.where(norm <= limit, angles, angles * (limit / norm))


def unsupported(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why OFT cannot run at this live module."""
    if shape.kind is ModuleKind.EMBEDDING:
        return None
    if isinstance(module, nn.Conv2d) and module.dilation[0] > 1:
        return f"OFT does not support a convolution with dilation {tuple(module.dilation)}"
    return not_rerunnable(module)


def changes(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """Whether any angle is not zero, and the series long enough to contain them."""
    terms, eps = site.settings["terms"], site.settings["eps"]
    if eps == 0 or (terms is not None and terms < 2):
        return False
    return any(bool(angles.any()) for angles in roles.values())


def build(site: SitePlan, shape: ModuleShape, roles: Roles, dropout: float) -> Factors:
    """The factors at one site. PEFT applies no dropout."""
    if shape.kind is ModuleKind.EMBEDDING:
        return OutputFactors(site, shape, roles)
    kind = PatchFactors if shape.kind is ModuleKind.CONV else InputFactors
    return kind(site, shape, roles)


def delta_weight(
    site: SitePlan, module: nn.Module, shape: ModuleShape, weight: Tensor, roles: Roles
) -> Delta:
    """``W R - W`` at an embedding; else ``W R^T - W``, because the input is rotated."""
    rotation = _Rotating(site, shape, roles).rotation()
    turn = rotation if shape.kind is ModuleKind.EMBEDDING else rotation.mT
    size = turn.shape[-1]

    def delta(rows: slice) -> Tensor:
        old = weight[rows].to(turn)
        blocks = old.reshape(len(old), -1, size)
        new = torch.einsum("nbk,bkc->nbc", blocks, turn.expand(blocks.shape[1], -1, -1))
        return new.reshape(old.shape).sub_(old)

    return delta


def unmergeable(site: SitePlan, module: nn.Module, shape: ModuleShape) -> str | None:
    """Why the rotation cannot be merged at this module."""
    if shape.kind is ModuleKind.EMBEDDING and cast(nn.Embedding, module).max_norm is not None:
        return "the rows of an embedding with max_norm are rescaled at each use"
    if shape.kind is ModuleKind.CONV and any(size != 1 for size in shape.kernel):
        return "PEFT's OFT of a kernel's patches is not a rotation of the kernel"
    if shape.groups > 1:
        return "the rotation mixes the channels of all groups, the weight does not"
    return None


def initial(new: NewSite) -> Roles:
    """PEFT's initialisation: no rotation; with ``init_weights: false`` small rotations."""
    plain = new.config.get("init_weights", True)
    return {role: new.zeros(role) if plain else new.normal(role, 0.1) for role in new.shapes}


METHOD = Method(
    "OFT",
    build,
    unsupported=unsupported,
    changes=changes,
    delta_weight=delta_weight,
    unmergeable=unmergeable,
    initial=initial,
)
