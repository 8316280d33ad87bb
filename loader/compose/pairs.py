"""One adapter's LoRA factors at one module, as plain matrices: what every combination works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...registry.files.facts import ModuleKind

SPELLINGS: Mapping[str, tuple[str, str]] = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}
"""The two factors on disk, after the module's name."""


@dataclass(frozen=True, eq=False)
class PairPlace:
    """Where a pair sits: how it is spelled and shaped there.

    ``groups`` and ``kernel`` are a convolution's. Its B (out, rank / groups, 1, ..) acts within
    its group, so that the factors are matrices once for each group.
    """

    module: str
    kind: ModuleKind
    kernel: tuple[int, ...] = ()
    groups: int = 1

    @property
    def names(self) -> tuple[str, str]:
        """The full names of A and B, without PEFT's prefix."""
        a, b = SPELLINGS["embedding" if self.kind is ModuleKind.EMBEDDING else "linear"]
        return f"{self.module}.{a}", f"{self.module}.{b}"


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

    @property
    def rank(self) -> int:
        return self.a.shape[0] * self.a.shape[1]


def fold(
    a: torch.Tensor, b: torch.Tensor, scale: float, bias: torch.Tensor | None, groups: int = 1
) -> Pair:
    """Factors as they sit at a site (A (r, in, *kernel), B (out, r / groups, 1, ..)) as a pair."""
    rank, outer = a.shape[0], b.shape[0]
    return Pair(
        plain(a).reshape(groups, rank // groups, -1),
        plain(b).reshape(groups, outer // groups, -1),
        scale,
        None if bias is None else plain(bias),
    )


def unfold(pair: Pair, place: PairPlace) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a pair in the shapes of its place, contiguous."""
    groups, rank, inner = pair.a.shape
    kernel = place.kernel
    size = torch.Size(kernel).numel()
    a = pair.a.reshape(groups * rank, inner // size, *kernel)
    b = pair.b.reshape(groups * pair.b.shape[1], rank, *(1 for _ in kernel))
    return a.contiguous(), b.contiguous()


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The values in float32 on the CPU, without a graph; the same tensor where it is that."""
    return tensor.detach().to("cpu", torch.float32)
