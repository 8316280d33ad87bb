"""What an adapter holds at one module, and what it does there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class Factors(Protocol):
    """What one adapter adds to the output of one module."""

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        """``out + weight * delta(x)``, in any dtype; ``out`` is not changed in place.

        ``base`` is what the module itself returned for ``x``. Deltas that depend on the output
        (a rescaled output, another input) are computed from it and not from ``out``, so that the
        order of several adapters does not matter.
        """
        ...

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        """``weight * delta`` as parts for mixed batches; ``None`` where there are none (PEFT's
        layers, dropout): the rows then run separately."""
        ...


class WeightFactors(Protocol):
    """What one adapter adds to one parameter of a module. ``name`` is the parameter's path in the
    module; it may be inside a submodule whose weight the module reads."""

    name: str

    def add_to(self, module: nn.Module, parameter: Tensor, weight: float) -> Tensor:
        """``parameter + weight * delta``, in any dtype; the parameter is not changed."""
        ...


class RowDelta(Protocol):
    """What some rows of a batch add to the output of one module."""

    nbytes: int

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        """``out`` plus the rows' deltas, in any dtype. The batch has each row ``repeat`` times, one
        after the other. ``base`` is what the module itself returned for ``x``."""
        ...


class RowPart(ABC):
    """What one adapter adds to a row; the adapter's weight is included."""

    of: tuple[Tensor, ...] = ()
    """The tensors of the base that it was computed from."""

    @property
    def kind(self) -> Hashable:
        """Parts of one kind can be stacked."""
        return type(self)

    @classmethod
    @abstractmethod
    def gathered(cls, parts: Sequence[tuple[int, Any]], rows: int) -> RowDelta:
        """Parts of one kind, each with the index of its row, for a batch of ``rows``."""


class BiasChange:
    """The bias ``value`` in place of ``old``, the base's own."""

    __slots__ = ("old", "value")

    def __init__(self, value: Tensor, old: Tensor) -> None:
        self.value = value
        self.old = old.detach()

    def difference(self, weight: float) -> Tensor:
        return (self.value - self.old.to(self.value.device)) * weight


class VirtualTokens(Protocol):
    """Virtual tokens, and how a call runs with them."""

    @property
    def embeddings(self) -> Tensor: ...

    @property
    def encoder(self) -> Any:
        """The ``nn.Module`` that computes them in training, or ``None``."""

    def exchange(self, embeddings: Tensor) -> None:
        """Replace the parameter by another tensor."""

    def call(self, base: nn.Module, stepping: bool, args: Any, kwargs: dict[str, Any]) -> Any:
        """The base's forward with the virtual tokens."""

    def generate(
        self, base: nn.Module, generate: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The base's ``generate`` with the virtual tokens."""
