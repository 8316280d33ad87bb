"""Which lines of a YAML text belong to which entry of a block mapping, comments included."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from .reading.nodes import Entry, Items, Map, Node, Scalar, scalars

_BREAK = re.compile(r"\r\n|\n|\r")


def newline_of(text: str) -> str:
    """The line break of a text; the longest if it has several."""
    return next((one for one in ("\r\n", "\n", "\r") if one in text), "\n")


@dataclass(frozen=True)
class Lines:
    """A text by lines, which count from 0 and have no line breaks."""

    text: str

    @cached_property
    def starts(self) -> list[int]:
        """The offset of each line."""
        starts = [0, *(match.end() for match in _BREAK.finditer(self.text))]
        return starts[:-1] if len(starts) > 1 and starts[-1] == len(self.text) else starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> str:
        start = self.starts[number]
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    def number(self, offset: int) -> int:
        """The line that an offset is in."""
        return bisect_right(self.starts, offset) - 1

    def offset(self, number: int) -> int:
        """Where a line starts; the end of the text for the line after the last."""
        return self.starts[number] if number < len(self.starts) else len(self.text)

    def indent(self, number: int) -> int:
        """Spaces before the first other character."""
        line = self[number]
        return len(line) - len(line.lstrip(" "))

    def is_blank(self, number: int) -> bool:
        return not self[number].strip()

    def is_comment(self, number: int) -> bool:
        return self[number].lstrip().startswith("#")

    def is_loose(self, number: int) -> bool:
        """Whether it belongs to no value: it is blank, or a comment."""
        return self.is_blank(number) or self.is_comment(number)


@dataclass(frozen=True)
class Chunk:
    """The lines of one entry. ``above`` is the first line of the comments and blank lines before
    it, ``start`` the line of its key, ``end`` the line after it and after the comments that are
    indented more than the key. ``open`` says that blank lines after it would be part of its value,
    which ends in text after ``|+``."""

    key: str
    entry: Entry
    above: int
    start: int
    end: int
    open: bool


@dataclass(frozen=True)
class Chunks:
    """A block mapping by its entries, in the order of the text. ``column`` (from 0) is that of its
    keys, ``end`` the line after it: comments between it and the last entry belong to neither."""

    chunks: tuple[Chunk, ...]
    column: int
    end: int


def body_of(lines: Lines, root: Map) -> tuple[int, int]:
    """The lines of the top mapping, which is not in braces: from the first to before the end.

    They are after the directives and the ``---`` at the top, and before the ``...`` at the end.
    """
    first = lines.number(min(entry.key.spot.start for entry in root.entries.values()))
    last = lines.number(max(root.last - 1, 0))
    start = max((n + 1 for n in range(first) if not lines.is_loose(n)), default=0)
    end = next((n for n in range(last + 1, len(lines)) if not lines.is_loose(n)), len(lines))
    return start, end


def chunks_of(lines: Lines, node: Map, first: int, end: int) -> Chunks | None:
    """The entries of ``node``, whose text is in the lines from ``first`` to before ``end``.

    ``None`` if it is not written with each key at the start of a line, or has entries that another
    mapping brings (``<<``).
    """
    entries = sorted(node.entries.items(), key=lambda item: item[1].key.spot.start)
    if node.flow or not entries or not all(entry.own for _, entry in entries):
        return None
    starts = [lines.number(entry.key.spot.start) for _, entry in entries]
    column = lines.indent(starts[0])
    for start, (_, entry) in zip(starts, entries, strict=True):
        if entry.key.spot.start != lines.offset(start) + column:
            return None
    found: list[Chunk] = []
    above = first
    for index, (key, entry) in enumerate(entries):
        start = starts[index]
        if not _only_comments(lines, above, start):
            return None
        until = starts[index + 1] if index + 1 < len(entries) else end
        last = _after(lines, entry)
        stop = after_deeper_comments(lines, last, until, column)
        is_open = stop == last and _keeps_blank_lines(lines, entry)
        found.append(Chunk(key, entry, above, start, stop, is_open))
        above = stop
    return Chunks(tuple(found), column, end) if _only_comments(lines, above, end) else None


def is_block_scalar(text: str, node: Node) -> bool:
    """Whether it is text after ``|`` or ``>``."""
    return isinstance(node, Scalar) and text[node.spot.start : node.spot.start + 1] in ("|", ">")


def _after(lines: Lines, entry: Entry) -> int:
    """The line after the value of an entry."""
    node, end = entry.value, max(entry.key.spot.end, entry.spot.end)
    if entry.alias:
        return lines.number(end - 1) + 1
    leaf = _last(node)
    if leaf is not None and is_block_scalar(lines.text, leaf) and not _keeps(lines.text, leaf):
        inside = lines.text[leaf.spot.start : end]
        end = leaf.spot.start + len(inside.rstrip())
    return lines.number(end - 1) + 1


def _keeps_blank_lines(lines: Lines, entry: Entry) -> bool:
    leaf = None if entry.alias else _last(entry.value)
    return leaf is not None and is_block_scalar(lines.text, leaf) and _keeps(lines.text, leaf)


def _keeps(text: str, leaf: Scalar) -> bool:
    return "+" in text[leaf.spot.start : leaf.spot.start + 3].split("\n")[0]


def _last(node: Node) -> Scalar | None:
    """The value that is written last in a block node."""
    leaves = [scalar for _, scalar in scalars(node)]
    if isinstance(node, Map | Items) and node.flow:
        return None
    return max(leaves, key=lambda scalar: scalar.spot.end, default=None)


def _only_comments(lines: Lines, first: int, end: int) -> bool:
    return all(map(lines.is_loose, range(first, end)))


def after_deeper_comments(lines: Lines, first: int, until: int, column: int) -> int:
    """The line after the comments from ``first`` that are indented more than ``column``."""
    end = first
    for number in range(first, until):
        if lines.is_blank(number):
            continue
        if not lines.is_comment(number) or lines.indent(number) <= column:
            break
        end = number + 1
    return end
