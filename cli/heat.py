"""A heat map: where an adapter acts, by layer and kind of module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .console import Printer, Styled
from .render import print_table

if TYPE_CHECKING:
    from ..registry.heat_map import HeatMap, Size

SHADES = " ░▒▓█"
STYLES = ("", "blue", "cyan", "yellow", "bold red")
"""By strength, from none to the highest."""
NARROWEST = 3
"""Columns of a cell with the space before it."""


def print_heat(sizes: Mapping[str, Size], printer: Printer) -> None:
    """Print the maps: shaded cells on a terminal, a table of numbers elsewhere."""
    from ..registry.heat_map import heat_maps, is_relative

    unit = "of the weight's norm" if is_relative(sizes) else "(Frobenius norm)"
    for drawn in heat_maps(sizes):
        printer.line((drawn.stack or "outside of layers", "bold"))
        if printer.fancy:
            _print_shaded(drawn, printer)
            printer.line(f"{SHADES[-1]} = {number(drawn.highest)} {unit}", indent=2)
        else:
            rows = [
                (_layer(layer), *("" if v is None else number(v) for v in values))
                for layer, values in drawn.rows
            ]
            print_table(("layer", *drawn.kinds), rows, printer)


def number(value: float) -> str:
    """Three digits: ``0.0123``, ``1.2e-05``."""
    return f"{value:.3g}"


def _print_shaded(drawn: HeatMap, printer: Printer) -> None:
    from ..registry.heat_map import strength

    label = max(len(_layer(layer)) for layer, _ in drawn.rows) + 2
    room = (printer.width or 80) - label
    names = list(drawn.kinds)
    if sum(len(name) + 1 for name in names) > room:
        names = [_letter(at) for at in range(len(drawn.kinds))]
        legend = (f"{a} {kind}" for a, kind in zip(names, drawn.kinds, strict=True))
        printer.line(", ".join(legend), indent=2)
    widths = [max(len(name) + 1, NARROWEST) for name in names]
    for columns in _fitting(widths, room):
        head = "".join(names[at].rjust(widths[at]) for at in columns)
        printer.line((" " * label + head, "dim"))
        for layer, values in drawn.rows:
            parts: list[Styled] = [(_layer(layer).rjust(label - 1) + " ", "dim")]
            for at in columns:
                level = strength(values[at], drawn.highest, len(SHADES) - 1)
                parts.append((" " + SHADES[level] * (widths[at] - 1), STYLES[level]))
            printer.line(*parts)


def _fitting(widths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of columns that fit beside each other, in blocks."""
    blocks: list[list[int]] = [[]]
    left = room
    for at, width in enumerate(widths):
        if width > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(at)
        left -= width
    return blocks


def _letter(at: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    more, last = divmod(at, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)


def _layer(layer: int | None) -> str:
    return "-" if layer is None else str(layer)
