"""aLoRA at a linear module: a pair of factors that acts from the invocation tokens on.

Follows PEFT 0.21.2, ``tuners/lora/variants.py`` (``ALoraLinearVariant``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ..adapter.factors import RowDelta, RowPart
from ..routing.routing import CURRENT
from .linear import LinearFactors


class ActivatedFactors:
    """``tokens`` are the invocation tokens."""

    __slots__ = ("plain", "tokens")

    def __init__(self, plain: LinearFactors, tokens: tuple[int, ...]) -> None:
        self.plain = plain
        self.tokens = tokens

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        call = CURRENT.get()
        # called for a part of the batch's rows, and which rows these are is not known here
        if call is not None and call.rows is not None:
            kind = type(module).__name__
            raise RoutingError(
                codes.ROWS_LOST.finding(f"aLoRA dropout at a {kind} cannot be drawn for each row")
            )
        mask = _active(self.tokens, out, module)
        return torch.where(mask, self.plain.add(module, x, base, out, weight), out)

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        found = self.plain.parts(module, weight)
        return None if found is None else tuple(Activated(part, self.tokens) for part in found)


@dataclasses.dataclass(frozen=True, eq=False)
class Activated(RowPart):
    """Another part, applied from the invocation on."""

    inner: RowPart
    tokens: tuple[int, ...]

    @property
    def kind(self) -> Hashable:
        return (type(self), self.tokens, self.inner.kind)

    @classmethod
    def gathered(cls, parts: Sequence[tuple[int, Activated]], rows: int) -> RowDelta:
        first = parts[0][1]
        inner = type(first.inner).gathered([(row, part.inner) for row, part in parts], rows)
        return ActivatedRows(inner, first.tokens)


class ActivatedRows:
    """All rows with the same invocation."""

    def __init__(self, inner: RowDelta, tokens: tuple[int, ...]) -> None:
        self.inner = inner
        self.tokens = tokens
        self.nbytes = inner.nbytes

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        mask = _active(self.tokens, out, module)
        return torch.where(mask, self.inner.add(module, x, base, out, repeat), out)


def _active(tokens: tuple[int, ...], out: Tensor, module: nn.Module) -> Tensor:
    """Which of the module's outputs (rows, tokens, out) change: (rows, tokens, 1)."""
    call = CURRENT.get()
    activation = None if call is None else call.activation
    if activation is None:
        message = "An aLoRA runs only in the model's forward and generate"
        raise RoutingError(fit_codes.ACTIVATION_UNKNOWN.finding(message))
    return activation.mask(tokens, out, type(module).__name__)
