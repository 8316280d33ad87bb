"""Where an adapter acts: one value for each layer and kind of module. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NUMBER = re.compile(r"(?P<before>.*?)\.?\b(?P<number>\d{1,6})\.(?P<after>.+)\Z")


@dataclass(frozen=True)
class Size:
    """How large a change is: its Frobenius norm, and that of the weight that it changes, where
    this is known."""

    norm: float
    weight: float | None = None

    @property
    def relative(self) -> float | None:
        """The change as a part of the weight."""
        return None if not self.weight else self.norm / self.weight


@dataclass(frozen=True)
class Place:
    """A module's layer and kind: ``model.layers``, 12, ``q_proj``. Modules outside of the layers
    have no number."""

    stack: str
    layer: int | None
    kind: str


@dataclass(frozen=True)
class HeatMap:
    """The values of one stack of layers: rows by layer, one column for each kind of module.
    ``None`` where nothing is changed."""

    stack: str
    kinds: tuple[str, ...]
    rows: tuple[tuple[int | None, tuple[float | None, ...]], ...]

    @property
    def highest(self) -> float:
        """The largest value."""
        values = [value for _, row in self.rows for value in row if value is not None]
        return max(values, default=0.0)


def place_of(module: str) -> Place:
    """Where a module is: the first number in its name is its layer."""
    match = _NUMBER.match(module)
    if match is None:
        stack, _, kind = module.rpartition(".")
        return Place(stack, None, kind)
    kind = match["after"].rpartition(".")[2]
    return Place(match["before"], int(match["number"]), kind)


def heat_maps(sizes: Mapping[str, Size]) -> list[HeatMap]:
    """The maps of an adapter, one for each stack of layers, in the order of its modules.

    Values are relative sizes where all are known, else norms. Modules of one layer and kind (the
    experts of a layer) are one value: the size of their changes together.
    """
    relative = is_relative(sizes)
    stacks: dict[str, dict[tuple[int | None, str], list[Size]]] = {}
    for module, size in sizes.items():
        place = place_of(module)
        cells = stacks.setdefault(place.stack if place.layer is not None else "", {})
        cells.setdefault((place.layer, place.kind), []).append(size)
    return [_map(stack, cells, relative) for stack, cells in stacks.items()]


def is_relative(sizes: Mapping[str, Size]) -> bool:
    """Whether the weights of all modules are known."""
    return bool(sizes) and all(size.relative is not None for size in sizes.values())


def strength(value: float | None, highest: float, shades: int) -> int:
    """From 0 (nothing is changed) to ``shades``, that of the highest value."""
    if value is None or not value or not highest:
        return 0
    return max(1, math.ceil(value / highest * shades - 1e-9))


def together(sizes: Iterable[Size]) -> Size:
    """The size of several changes as one."""
    found = [*sizes]
    weights = [size.weight for size in found if size.weight is not None]
    norm = math.sqrt(sum(size.norm**2 for size in found))
    known = len(weights) == len(found)
    return Size(norm, math.sqrt(sum(w**2 for w in weights)) if known else None)


def _map(stack: str, cells: Mapping[tuple[int | None, str], list[Size]], relative: bool) -> HeatMap:
    kinds = tuple(dict.fromkeys(kind for _, kind in cells))
    layers = sorted({layer for layer, _ in cells}, key=lambda n: (n is None, n or 0))
    values: dict[tuple[int | None, str], float | None] = {}
    for key, found in cells.items():
        size = together(found)
        values[key] = size.relative if relative else size.norm
    return HeatMap(
        stack,
        kinds,
        tuple((layer, tuple(values.get((layer, kind)) for kind in kinds)) for layer in layers),
    )
