"""Where the factors of modules that were fused or split are in today's factors.

The low-rank deltas of weights that are parts of one weight are together a low-rank delta: with
``A`` stacked and ``B`` block by block on the diagonal, ``B A`` has each part's own delta in its
place, and zeros for parts without factors. A weight that was split gives each target its rows of
``B``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..files.conversion import ConversionError, Rule, Shape
from ..files.facts import Joined, Piece

MAX_RANK = 16
"""The largest rank, as a multiple of a weight's longer side: with one large expert, the factors of
all experts become as large."""
PairPart = tuple[str, "int | None"]
"""A source of a rule, and the number in its list."""


class Pair(NamedTuple):
    """The two factors of one module in the file: their keys and shapes, A (r, in), B (out, r)."""

    a: str
    b: str
    a_shape: Shape
    b_shape: Shape
    scale: float

    @property
    def rank(self) -> int:
        return self.a_shape[0]


class Fused(NamedTuple):
    """Factors of a weight that is made of others, and their ``scale``."""

    a: Joined
    b: Joined
    a_shape: Shape
    b_shape: Shape
    rank: int
    scale: float


def fuse(rule: Rule, shape: Shape, pairs: Mapping[PairPart, Pair]) -> Fused:
    """One pair for a weight of this ``shape``, which ``rule`` makes of other weights; some of these
    have ``pairs``. Raises :class:`ConversionError` where the rule does more than place values."""
    stacked, axis = _gathering(rule)
    if len(shape) != 2 + stacked:
        raise ConversionError(f"today it has {len(shape)} dimensions")
    experts = shape[0] if stacked else 1
    rows, columns = shape[stacked:]
    ranks: dict[str, int] = {}
    for (source, _), pair in pairs.items():
        if pair.b_shape[1] != pair.rank:
            raise ConversionError(f"{pair.a} and {pair.b} have different ranks")
        ranks[source] = max(ranks.get(source, 0), pair.rank)
    starts = _starts(rule, axis, shape[stacked:], pairs)
    order = [source for source in rule.sources if source in ranks]
    first = {source: sum(ranks[one] for one in order[:at]) for at, source in enumerate(order)}
    rank = sum(ranks.values())
    if rank > MAX_RANK * max(rows, columns):
        raise ConversionError(f"a rank of {rank} is too large for its {rows} x {columns}")
    scale = max((pair.scale for pair in pairs.values()), key=abs)
    into_a: list[Piece] = []
    into_b: list[Piece] = []
    for (source, expert), pair in pairs.items():
        row, column = (starts[source], 0) if axis == 0 else (0, starts[source])
        height, width = pair.b_shape[0], pair.a_shape[1]
        fits = (rows if axis != 0 else height, columns if axis != 1 else width)
        if (height, width) != fits or row + height > rows or column + width > columns:
            raise ConversionError(
                f"{pair.a}: {height} x {width} does not fit in {rows} x {columns}"
            )
        at = slice(first[source], first[source] + pair.rank)
        here = () if expert is None or not stacked else (expert,)
        across = slice(column, column + width)
        down = slice(row, row + height)
        into_a.append(Piece(pair.a, (*here, at, across)))
        factor = 1.0 if pair.scale == scale else pair.scale / scale
        into_b.append(Piece(pair.b, (down, at, *here), factor=factor))
    if not stacked:
        a_view, b_view = (rank, columns), (rows, rank)
    else:
        a_view, b_view = (experts, rank, columns), (rows, rank, experts)
    return Fused(
        Joined(a_view, tuple(into_a)),
        Joined(b_view, tuple(into_b)),
        (rank * experts, columns),
        (rows, rank * experts),
        rank,
        scale,
    )


def split(rule: Rule, shapes: Sequence[Shape | None], rows: int) -> list[slice]:
    """The part of a weight's ``rows`` that each target of ``rule`` has, by the targets'
    ``shapes``. Raises :class:`ConversionError`."""
    operations = [tuple(one[:2]) for one in rule.operations]
    if operations not in ([("Chunk", 0)], [("Split", 0)]) or len(rule.operations[0]) > 2:
        raise ConversionError(f"its rows are re-ordered ({_names(rule)})")
    found: list[slice] = []
    at = 0
    for shape in shapes:
        if shape is None:
            raise ConversionError("the sizes of its parts are not known")
        found.append(slice(at, at + shape[0]))
        at += shape[0]
    if at != rows:
        raise ConversionError(f"it has {rows} rows, but its parts have {at}")
    return found


def _gathering(rule: Rule) -> tuple[int, int | None]:
    """Whether a list is stacked (1 or 0), and the axis along which sources are joined, or none."""
    operations = [tuple(one) for one in rule.operations]
    stacked = int(operations[:1] == [("MergeModulelist", 0)])
    rest = operations[stacked:]
    if not rest:
        if stacked and len(rule.sources) == 1:
            return stacked, None
    elif len(rest) == 1 and rest[0][0] == "Concatenate" and rest[0][1] - stacked in (0, 1):
        return stacked, rest[0][1] - stacked
    raise ConversionError(f"its values are re-ordered ({_names(rule)})")


def _starts(
    rule: Rule, axis: int | None, matrix: Shape, pairs: Mapping[PairPart, Pair]
) -> dict[str, int]:
    """Where each source starts along the axis. Sources without factors share the rest equally."""
    if axis is None:
        return dict.fromkeys(rule.sources, 0)
    sizes: dict[str, int] = {}
    for (source, _), pair in pairs.items():
        size = pair.b_shape[0] if axis == 0 else pair.a_shape[1]
        if sizes.setdefault(source, size) != size:
            raise ConversionError(f"{pair.a} and the others of its kind have different sizes")
    unknown = [source for source in rule.sources if source not in sizes]
    left = matrix[axis] - sum(sizes.values())
    if left < 0 or (not unknown and left) or (unknown and left % len(unknown)):
        raise ConversionError(f"the sizes of its parts do not add up to {matrix[axis]}")
    sizes |= {source: left // len(unknown) for source in unknown}
    starts: dict[str, int] = {}
    at = 0
    for source in rule.sources:
        starts[source] = at
        at += sizes[source]
    return starts


def _names(rule: Rule) -> str:
    return ", ".join(str(one[0]) for one in rule.operations)
