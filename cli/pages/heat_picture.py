"""A heat map as cells: a column for each layer, a row for each kind of module. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...registry.heat_map import HeatMap, strength

SHADES = 7
SIDE = 20
"""Pixels of a cell."""
_LETTER = 6.7
"""Pixels of a letter of a row's name, about."""


@dataclass(frozen=True)
class Cell:
    """One layer's modules of one kind: place, shade, and what it says."""

    x: int
    y: int
    shade: int
    text: str


@dataclass(frozen=True)
class Label:
    """A text at a place."""

    x: int
    y: int
    text: str


@dataclass(frozen=True)
class Picture:
    """The map of one stack of layers. ``highest`` are its largest values as text."""

    stack: str
    width: int
    height: int
    cells: tuple[Cell, ...]
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    highest: tuple[str, ...]
    top: str

    @property
    def summary(self) -> str:
        where = self.stack or "modules outside of layers"
        return f"Where the adapter acts, {where}: most at {'; '.join(self.highest[:3])}"


def picture(drawn: HeatMap, relative: bool) -> Picture:
    """The picture of a map whose values are ``relative`` to the base's weights, or norms."""
    left = max(36, int(max((len(kind) for kind in drawn.kinds), default=0) * _LETTER) + 12)
    top = 18
    layers = [layer for layer, _ in drawn.rows]
    step = 1 if len(layers) <= 24 else 4 if len(layers) <= 60 else 8
    cells = tuple(_cells(drawn, left, top, relative))
    values = [
        (value, f"{_layer(layer)} {kind}: {said(value, relative)}".strip())
        for layer, row in drawn.rows
        for kind, value in zip(drawn.kinds, row, strict=True)
        if value is not None
    ]
    values.sort(key=lambda pair: -pair[0])
    return Picture(
        drawn.stack,
        left + SIDE * len(layers) + 2,
        top + SIDE * len(drawn.kinds) + 2,
        cells,
        tuple(Label(left - 8, top + SIDE * at + 14, kind) for at, kind in enumerate(drawn.kinds)),
        tuple(
            Label(left + SIDE * at + SIDE // 2 - 1, 12, "" if layer is None else str(layer))
            for at, layer in enumerate(layers)
            if at % step == 0
        ),
        tuple(text for _, text in values[:5]),
        said(drawn.highest, relative),
    )


def said(value: float, relative: bool) -> str:
    """``1.2%`` of the weight, or the norm ``0.0123``."""
    return f"{_plain(100 * value)}%" if relative else f"{value:.3g}"


def _plain(value: float) -> str:
    """Two digits, and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _cells(drawn: HeatMap, left: int, top: int, relative: bool) -> Iterator[Cell]:
    highest = drawn.highest
    for column, (layer, row) in enumerate(drawn.rows):
        for line, (kind, value) in enumerate(zip(drawn.kinds, row, strict=True)):
            if value is None:
                text = f"{_layer(layer)} {kind}: not changed".strip()
            else:
                text = f"{_layer(layer)} {kind}: {said(value, relative)}".strip()
            shade = strength(value, highest, SHADES)
            yield Cell(left + SIDE * column, top + SIDE * line, shade, text)


def _layer(layer: int | None) -> str:
    return "" if layer is None else f"layer {layer}"
