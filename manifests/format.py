"""Format a manifest: canonical order of keys, indentation of two, and every comment.

Lines are moved and shifted; values stay as they are written. Then the text is read again, and must
have exactly the same data and the same comments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile

from .edit import BOM, read_text, same
from .findings import usage as codes
from .findings.errors import ManifestError
from .findings.finding import Where
from .language.schema import Manifest
from .layout import Chunk, Lines, body_of, chunks_of, is_block_scalar, newline_of
from .reading.conform import Shape, shape_of
from .reading.document import Document, read_document
from .reading.nodes import Items, Map, Node, scalars

STEP = 2
_TOP = shape_of(Manifest)
_FIRST = ("version", "extends", "name", "description")
"""Before notes (``x-`` keys), whose anchors what follows may use."""


def formatted(data: bytes, file: str | None = None) -> bytes:
    """A manifest's text in canonical form; formatting that again changes nothing.

    The keys of the language are put in the order of the reference. Names, lists, and what is in
    braces keep their order. Line endings stay.

    Args:
        data: The content of the file.
        file: Its name in findings.

    Raises:
        ManifestError: It cannot be read, or not be formatted without changing something else.
    """
    read_document(data, file)  # errors with the file's name
    text = data.decode("utf-8")
    mark, body = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    before = read_text(body)
    newline = newline_of(body)
    ends = [newline] if body.endswith(("\n", "\r")) else [newline, ""]  # text after | may need none
    for ordered in (True, False):  # an anchor may have to stay before its aliases
        lines = _Format(Lines(body), before.root, ordered).lines()
        if lines is None:
            break
        for end in ends:
            after = newline.join(lines) + end
            if _is_same(before, after):
                return (mark + after).encode("utf-8")
    raise ManifestError(
        codes.CANNOT_FORMAT.finding("Cannot format this manifest", Where(file=file))
    )


def _is_same(before: Document, text: str) -> bool:
    try:
        after = read_text(text)
    except ManifestError:
        return False
    if not same(before.data, after.data) or _names(before.root, _TOP) != _names(after.root, _TOP):
        return False
    return _comments(before) == _comments(after)


def _names(node: Node, shape: Shape) -> list[object]:
    """The keys whose order means something: all but those of the language."""
    if isinstance(node, Items):
        return [_names(item, Shape()) for item in node.items]
    if not isinstance(node, Map):
        return []
    keys = sorted(node.entries) if shape.is_model else [*node.entries]
    return [(key, _names(node.entries[key].value, _inner(shape, key))) for key in keys]


def _inner(shape: Shape, key: str) -> Shape:
    inner = shape.fields.get(key) if shape.is_model else shape.values
    return inner or Shape()


def _comments(document: Document) -> Counter[str]:
    """Every comment, and how often it is there."""
    found: Counter[str] = Counter()
    spots = {scalar.spot for _, scalar in scalars(document.root, keys=True)}
    at, text = 0, document.text
    for spot in [*sorted(spots, key=lambda spot: spot.start), None]:
        for line in text[at : len(text) if spot is None else max(at, spot.start)].splitlines():
            padded = f" {line}"
            start = padded.find(" #")
            if start >= 0:
                found[padded[start:].strip()] += 1
        at = at if spot is None else max(at, spot.end)
    return found


@dataclass(frozen=True)
class _Format:
    """One text that is formatted."""

    text: Lines
    root: Map
    ordered: bool

    def lines(self) -> list[str] | None:
        """The lines of the result; ``None`` where the top of the file is not ``key: value``."""
        text, root = self.text, self.root
        if root.flow:
            last = text.number(len(text.text.rstrip()) - 1)
            return [*_started(self._raw(0, last + 1, 0))]
        first = min(entry.key.spot.start for entry in root.entries.values())
        key_line = text.number(first)
        start, end = body_of(text, root)
        blank = [n for n in range(start, key_line) if text.is_blank(n)]
        head = blank[-1] + 1 if blank else key_line
        body = self._mapping(root, _TOP, head, end, 0)
        if body is None:
            return None
        return [*_started(self._raw(0, head, 0)), *body, *self._raw(end, len(text), 0)]

    def _mapping(
        self, node: Map, shape: Shape, first: int, end: int, column: int
    ) -> list[str] | None:
        """The lines of a block mapping, its keys in ``column``."""
        found = chunks_of(self.text, node, first, end)
        if found is None:
            return None
        chunks = list(found.chunks)
        if self.ordered and shape.is_model:
            chunks.sort(key=lambda chunk: _rank(chunk.key, shape))
        lines: list[str] = []
        open_end = True  # blank lines here would be part of a text, or stand at the start
        for chunk in chunks:
            above = self._comments(chunk.above, chunk.start, column)
            lines += _started(above) if open_end else above
            open_end = chunk.open
            lines += self._entry(chunk, _inner(shape, chunk.key), found.column, column)
        tail = max((chunk.end for chunk in found.chunks), default=first)
        after = [*self._comments(tail, end, column)]
        after = [*_started(after)] if open_end else after
        while after and not after[-1]:
            del after[-1]
        return lines + after

    def _comments(self, first: int, end: int, column: int) -> Iterator[str]:
        """Comments, and one blank line where there are several."""
        for number in range(first, end):
            comment = self.text[number].strip()
            if comment:
                yield " " * column + comment
            elif number + 1 == end or not self.text.is_blank(number + 1):
                yield ""

    def _raw(self, first: int, end: int, by: int) -> Iterator[str]:
        """Lines as they are, ``by`` columns further right."""
        for number in range(first, end):
            line = self._shifted(number, by)
            following = number + 1 < end and self.text.is_blank(number + 1)
            if line or number in self._inside or not following:
                yield line

    def _entry(self, chunk: Chunk, shape: Shape, old: int, column: int) -> list[str]:
        entry, value = chunk.entry, chunk.entry.value
        head = self._head(chunk, column)
        if isinstance(value, Map) and value.entries and not value.flow and not entry.alias:
            inner = self._mapping(value, shape, chunk.start + 1, chunk.end, column + STEP)
            if inner is not None:
                return [head, *inner]
        return [head, *self._raw(chunk.start + 1, chunk.end, column - old)]

    def _head(self, chunk: Chunk, column: int) -> str:
        """The line of the key: one space after its colon."""
        line, spot = self._line(chunk.start), chunk.entry.key.spot
        start = self.text.offset(chunk.start)
        key, rest = line[spot.start - start : spot.end - start], line[spot.end - start :]
        gap, colon, value = rest.partition(":")
        if not gap.strip() and colon and value.strip() and not value.lstrip().startswith("#"):
            return f"{' ' * column}{key}: {value.lstrip()}"
        return f"{' ' * column}{key}{rest}"

    def _line(self, number: int) -> str:
        line = self.text[number]
        return line if number in self._inside else line.rstrip()

    def _shifted(self, number: int, by: int) -> str:
        line = self._line(number)
        if not line:
            return line
        return " " * by + line if by > 0 else line[min(-by, self.text.indent(number)) :]

    @cached_property
    def _inside(self) -> frozenset[int]:
        """The lines that end inside a text over several lines: spaces at their ends may count."""
        found: set[int] = set()
        for _, scalar in scalars(self.root):
            first = self.text.number(scalar.spot.start)
            last = self.text.number(max(scalar.spot.end - 1, scalar.spot.start))
            block = is_block_scalar(self.text.text, scalar)
            found.update(range(first + 1 if block else first, last + 1 if block else last))
        return frozenset(found)


def _rank(key: str, shape: Shape) -> int:
    """Where a key of the language belongs; notes come before what may use them."""
    order = [*_FIRST, "x-", *shape.fields] if shape is _TOP else [*shape.fields, "x-"]
    name = "x-" if key.startswith("x-") else key
    return order.index(name) if name in order else len(order)


def _started(lines: Iterable[str]) -> Iterator[str]:
    """Without blank lines at the start."""
    return dropwhile(lambda line: not line, lines)
