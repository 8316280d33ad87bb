"""Trees of names as boxes and curves: what a composition is made of, what an adapter comes from.

Pure. A tree is drawn from the left (its leaves) to the right (its root).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .facts import Composition

BOX, ROW, GAP, HIGH, EDGE = 190.0, 46.0, 120.0, 32.0, 1.0
LONGEST = 24
"""Characters of a name that fit into a box."""
DEEPEST = 8


@dataclass(frozen=True)
class Tree:
    """A name, what is said of the way to it, and what it is made of."""

    name: str
    weight: str = ""
    parts: tuple[Tree, ...] = ()
    kind: str = "adapter"


@dataclass(frozen=True)
class Box:
    """A name with the upper left corner of its box. ``text`` is the name, cut to fit."""

    x: float
    y: float
    name: str
    text: str
    kind: str


@dataclass(frozen=True)
class Edge:
    """A curve between two boxes, and the place and text of what is said of it."""

    path: str
    x: float
    y: float
    text: str
    full: str


@dataclass(frozen=True)
class Graph:
    """A drawn tree. ``summary`` is for people who do not see it."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    summary: str


def composition_tree(one: Composition, others: Mapping[str, Composition]) -> Tree:
    """A composition with its members; ``others`` are those of its manifest, by name."""
    return Tree(one.name, "", _members(one, others, 1), "composition")


def draw(tree: Tree, verb: str = "combines") -> Graph:
    """The picture of a tree; ``verb`` says how a root is made of its parts."""
    boxes: list[Box] = []
    edges: list[Edge] = []
    depth = _depth(tree)
    rows = [0]

    def place(one: Tree, level: int) -> float:
        """Draw a tree; the middle of its root's box."""
        middles = [place(part, level + 1) for part in one.parts]
        if middles:
            y = (middles[0] + middles[-1]) / 2
        else:
            y = EDGE + HIGH / 2 + ROW * rows[0]
            rows[0] += 1
        x = EDGE + (depth - level) * (BOX + GAP)
        boxes.append(Box(x, y - HIGH / 2, one.name, cut(one.name, LONGEST), one.kind))
        for part, middle in zip(one.parts, middles, strict=True):
            start, half = x - GAP, GAP / 2
            path = (
                f"M{start:g} {middle:g}C{start + half:g} {middle:g} {x - half:g} {y:g} {x:g} {y:g}"
            )
            text = cut(part.weight, 14)
            edges.append(Edge(path, start + 8, middle - 6, text, part.weight))
        return y

    place(tree, 0)
    width = 2 * EDGE + (depth + 1) * BOX + depth * GAP
    height = 2 * EDGE + HIGH + ROW * (max(rows[0], 1) - 1)
    parts = ", ".join(f"{p.name} {p.weight}".strip() for p in tree.parts)
    return Graph(width, height, tuple(boxes), tuple(edges), f"{tree.name} {verb} {parts}")


def cut(text: str, longest: int) -> str:
    """``text``, with its middle left out where it is long."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 3
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def _members(one: Composition, others: Mapping[str, Composition], level: int) -> tuple[Tree, ...]:
    found: list[Tree] = []
    for name, weight in one.members:
        inner = others.get(name) if level < DEEPEST else None
        if inner is None:
            found.append(Tree(name, weight))
        else:
            found.append(Tree(name, weight, _members(inner, others, level + 1), "composition"))
    return tuple(found)


def _depth(tree: Tree) -> int:
    return max((1 + _depth(part) for part in tree.parts), default=0)
