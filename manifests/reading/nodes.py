"""A manifest as a tree while it is read: every value with the place where it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..findings.finding import Where
from .scalars import NOT_NATIVE, resolve_plain

Path: TypeAlias = tuple[str | int, ...]


class Spot(NamedTuple):
    """Where something is written: line and column count from 1, ``start`` and ``end`` are
    offsets in characters. A value in memory has none of them."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    start: int = 0
    end: int = 0

    def at(self, path: Path = ()) -> Where:
        return Where(self.file, path, self.line, self.column)


NOWHERE = Spot()


class Locate(Protocol):
    """``locate(path, key=False)``: where a value, or its key, is written."""

    def __call__(self, path: Path, *, key: bool = False) -> Where: ...


@dataclass(frozen=True)
class Scalar:
    """One value. ``text`` is as YAML reads it, not yet converted to a number or a boolean.

    ``plain`` says that it was written without quotes. ``native`` is the object itself for a value
    in memory. ``written`` is the text before ``variables`` were expanded. ``by_user`` says that it
    is the complete value of one environment variable whose name says that it is a place;
    ``only_where`` is so too if that variable is not set, and its default is used.
    """

    text: str
    plain: bool
    spot: Spot = NOWHERE
    native: Any = NOT_NATIVE
    written: str | None = None
    variables: tuple[str, ...] = ()
    by_user: bool = False
    only_where: bool = False

    @property
    def value(self) -> Any:
        """Its value by YAML 1.2's core schema."""
        if self.native is not NOT_NATIVE:
            return self.native
        return resolve_plain(self.text) if self.plain else self.text

    @property
    def is_null(self) -> bool:
        return self.value is None

    @property
    def shown(self) -> str:
        """Its text for findings: as written, with quotes and variables."""
        if self.native is not NOT_NATIVE:
            return repr(self.native)
        text = self.text if self.written is None else self.written
        if self.plain:
            return text or "nothing"
        return f'"{text}"'


@dataclass(frozen=True)
class Entry:
    """One key of a mapping and its value.

    ``spot`` is where the value is used, which for an alias is not where it is written.
    ``own`` is false for an entry that ``<<`` merged.
    """

    key: Scalar
    value: Node
    spot: Spot
    alias: bool = False
    own: bool = True


@dataclass(frozen=True)
class Map:
    """A mapping. ``flow`` is ``{...}`` style; ``last`` is the offset where its last entry ends."""

    entries: Mapping[str, Entry]
    spot: Spot = NOWHERE
    flow: bool = False
    last: int = 0


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    spot: Spot = NOWHERE
    flow: bool = False


Node: TypeAlias = Scalar | Map | Items


@dataclass(frozen=True)
class NodePlace:
    """Where a path leads: the spots of the value and of its key (``None`` for root and items)."""

    path: Path
    value: Spot
    key: Spot | None = None
    node: Node = field(default_factory=lambda: Map({}))


def locate(root: Node, path: Path) -> NodePlace:
    """The place of ``path``, or of its nearest ancestor that exists."""
    place = NodePlace((), root.spot, None, root)
    for depth, part in enumerate(path):
        node = place.node
        if isinstance(node, Map) and part in node.entries:
            entry = node.entries[str(part)]
            place = NodePlace(path[: depth + 1], entry.spot, entry.key.spot, entry.value)
        elif isinstance(node, Items) and isinstance(part, int) and 0 <= part < len(node.items):
            item = node.items[part]
            place = NodePlace(path[: depth + 1], item.spot, None, item)
        else:
            break
    return place


def find(root: Node, path: Path) -> Node | None:
    """The value at ``path``, or ``None``."""
    place = locate(root, path)
    return place.node if len(place.path) == len(path) else None


def is_null(node: Node) -> bool:
    """Whether it is a scalar without a value."""
    return isinstance(node, Scalar) and node.is_null


def where(root: Node, file: str | None, path: Path, *, key: bool = False) -> Where:
    """Where the value (or the key) at ``path`` is written, else its nearest ancestor's key."""
    place = locate(root, path)
    missing = len(place.path) < len(path)
    spot = place.key if place.key is not None and (key or missing) else place.value
    return Where(file, path) if spot.line is None and spot.file is None else spot.at(path)


def plain_data(node: Node) -> Any:
    """Dicts, lists and values by YAML 1.2's core schema."""
    if isinstance(node, Map):
        return {key: plain_data(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, Items):
        return [plain_data(item) for item in node.items]
    return node.value


def scalars(node: Node, path: Path = (), *, keys: bool = False) -> Iterator[tuple[Path, Scalar]]:
    """Every value with its path, in the order of the file; ``keys`` too, with their mapping's."""
    if isinstance(node, Map):
        for key, entry in node.entries.items():
            if keys:
                yield path, entry.key
            yield from scalars(entry.value, (*path, key), keys=keys)
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from scalars(item, (*path, index), keys=keys)
    else:
        yield path, node


def describe(node: Node) -> str:
    """What a finding shows as found."""
    if isinstance(node, Map):
        return "a mapping" if node.entries else "an empty mapping"
    if isinstance(node, Items):
        return "a list" if node.items else "an empty list"
    shown = node.shown
    return shown if len(shown) <= 80 else shown[:77] + "..."
