"""One adapter's LoRA factors at one module, as plain matrices: what every combination works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...registry.files.facts import ModuleKind, ModuleShape


@dataclass(frozen=True, eq=False)
class PairPlace:
    """Where a pair is: the names and shapes that it has there.

    ``groups`` and ``kernel`` are a convolution's. Its B (out, rank / groups, 1, ..) acts within
    its group, so that the factors are matrices once for each group.
    """

    module: str
    kind: ModuleKind
    kernel: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, module: str, shape: ModuleShape) -> PairPlace:
        return cls(module, shape.kind, tuple(shape.kernel), shape.groups)

    @property
    def names(self) -> tuple[str, str]:
        """The full names of A and B on disk, without PEFT's prefix."""
        if self.kind is ModuleKind.EMBEDDING:
            return f"{self.module}.lora_embedding_A", f"{self.module}.lora_embedding_B"
        return f"{self.module}.lora_A.weight", f"{self.module}.lora_B.weight"


@dataclass(frozen=True, eq=False)
class Pair:
    """``delta = scale * (b @ a)``, group by group, and ``scale * bias`` on the output.

    ``a`` is (groups, rank / groups, in * kernel), ``b`` (groups, out / groups, rank / groups),
    ``bias`` (out) or ``None``: float32, on the CPU.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float = 1.0
    bias: torch.Tensor | None = None

    @classmethod
    def of(cls, roles: Mapping[str, torch.Tensor], scale: float, groups: int = 1) -> Pair:
        """From the tensors of a site: A (r, in, *kernel), B (out, r / groups, 1, ..)."""
        a, b = (roles[role] if role in roles else roles[f"embedding_{role}"] for role in "AB")
        bias = roles.get("B_bias")
        return cls(
            plain(a).reshape(groups, a.shape[0] // groups, -1),
            plain(b).reshape(groups, b.shape[0] // groups, -1),
            scale,
            None if bias is None else plain(bias),
        )

    @property
    def rank(self) -> int:
        return self.a.shape[0] * self.a.shape[1]

    def delta(self) -> torch.Tensor:
        """``scale * (b @ a)``: (groups, out / groups, in * kernel), float32. PEFT's
        ``get_delta_weight``, always as (out, in)."""
        return (self.b @ self.a) * self.scale

    def at(self, place: PairPlace) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B in the shapes of a place, contiguous."""
        groups, rank, inner = self.a.shape
        size = torch.Size(place.kernel).numel()
        a = self.a.reshape(groups * rank, inner // size, *place.kernel)
        b = self.b.reshape(groups * self.b.shape[1], rank, *(1 for _ in place.kernel))
        return a.contiguous(), b.contiguous()


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The values in float32 on the CPU, without a graph; the same tensor where it is that."""
    return tensor.detach().to("cpu", torch.float32)
