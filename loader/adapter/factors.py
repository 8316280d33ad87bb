"""What an adapter holds at one place of the base, and what it does there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class Factors(Protocol):
    """What one adapter holds at one output site."""

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, weight: float) -> Tensor:
        """``out + weight * delta(x)``, in any dtype; ``out`` itself is left as it is.

        ``base`` is what the module itself returned for ``x``: deltas that are made from it
        (a rescaled output, another input) do not see the other adapters in ``out``, so that a sum
        is the sum of the deltas in any order.
        """
        ...


class WeightFactors(Protocol):
    """What one adapter holds for one parameter of a module, or of a module inside that one whose
    weight it reads: its path there, ``name``."""

    name: str

    def add_to(self, module: nn.Module, parameter: Tensor, weight: float) -> Tensor:
        """``parameter + weight * delta``, in any dtype; the parameter is left as it is."""
        ...


class RowDelta(Protocol):
    """What some rows add at one site."""

    nbytes: int

    def add(self, module: nn.Module, x: Tensor, base: Tensor, out: Tensor, repeat: int) -> Tensor:
        """``out`` with the rows' deltas, in any dtype; row ``i`` stands ``repeat`` times, in
        place. ``base`` is what the module itself returned for ``x``."""
        ...


class RowPart(ABC):
    """What one adapter adds to a row, its weight included."""

    of: tuple[Tensor, ...] = ()
    """The base's tensors that it was computed from."""

    @property
    def kind(self) -> Hashable:
        """Parts of one kind can be stacked."""
        return type(self)

    @classmethod
    @abstractmethod
    def gathered(cls, parts: Sequence[tuple[int, Any]], rows: int) -> RowDelta:
        """The parts of one kind, each with its row, for a batch of ``rows``."""


@runtime_checkable
class Gatherable(Protocol):
    """Factors that can be gathered."""

    def parts(self, module: nn.Module, weight: float) -> tuple[RowPart, ...] | None:
        """The delta times ``weight``; ``None`` where it cannot be gathered now (dropout)."""
        ...


class BiasChange:
    """``value`` in place of the base's bias, which is ``old``."""

    __slots__ = ("old", "value")

    def __init__(self, value: Tensor, old: Tensor) -> None:
        self.value = value
        self.old = old.detach()

    def difference(self, weight: float) -> Tensor:
        return (self.value - self.old.to(self.value.device)) * weight


class VirtualTokens(Protocol):
    """What acts on the model as a whole: virtual tokens, and what they do to a call."""

    @property
    def embeddings(self) -> Tensor: ...

    @property
    def encoder(self) -> Any:
        """What makes them while they are trained (an ``nn.Module``), or ``None``."""

    def exchange(self, embeddings: Tensor) -> None:
        """Have other values in the place of its parameter."""

    def call(self, base: nn.Module, stepping: bool, args: Any, kwargs: dict[str, Any]) -> Any:
        """The base's forward with them."""

    def generate(
        self, base: nn.Module, generate: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The base's ``generate`` with them."""
