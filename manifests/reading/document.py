"""The YAML reader with limits: bytes to plain data with the position of every key and value.

PyYAML scans and parses (libyaml's scanner where it is built in, else its own: the events are the
same). The tree is built here, from the events, so that no objects are constructed, every limit is
checked before memory is used, and aliases are counted without being expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from ..bounds import MANIFEST_BYTES, MANIFEST_DEPTH, MANIFEST_VALUES
from ..findings import language as codes
from ..findings.errors import ManifestError
from ..findings.finding import Finding, Where
from .nodes import Entry, Items, Map, Node, Path, Scalar, Spot, describe, plain_data, where
from .secrets import redacted
from .yaml_errors import explain_problem

_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = {
    "scalar": frozenset({None, "!", "tag:yaml.org,2002:str"}),
    "map": frozenset({None, "!", "tag:yaml.org,2002:map"}),
    "seq": frozenset({None, "!", "tag:yaml.org,2002:seq"}),
}
_MERGE = "<<"


@dataclass(frozen=True)
class Bounds:
    """How large a document may be: bytes, and values with aliases expanded."""

    size: int = MANIFEST_BYTES
    values: int = MANIFEST_VALUES


@dataclass(frozen=True)
class Document:
    """One YAML document: ``root`` is a mapping, ``text`` what it was read from."""

    file: str | None
    text: str
    root: Map

    @cached_property
    def data(self) -> dict[str, Any]:
        """Plain data by YAML 1.2's core schema. Aliases are expanded (within the bounds)."""
        return plain_data(self.root)

    def where(self, path: Path = (), *, key: bool = False) -> Where:
        """Where the value (or the key) at ``path`` is written, else its nearest ancestor's key."""
        return where(self.root, self.file, path, key=key)


def read_document(
    data: bytes,
    file: str | None = None,
    bounds: Bounds = Bounds(),
) -> Document:
    """The document in ``data``, else :class:`ManifestError` with everything that is wrong with it.

    ``file`` is its name in findings. Without other ``bounds``: 1 MiB and 100,000 values; always
    32 levels.
    """
    document, findings = compose(data, file, bounds=bounds)
    if findings or document is None:
        raise ManifestError(*map(redacted, findings))
    return document


def compose(
    data: bytes,
    file: str | None = None,
    loader: Any = None,
    bounds: Bounds = Bounds(),
) -> tuple[Document | None, list[Finding]]:
    """Like :func:`read_document`, but returns the findings, and also the document if it can be
    understood in spite of them. ``loader`` is PyYAML's class to parse with."""
    try:
        text = _decode(data, file, bounds.size)
        builder = _Builder(text, file, loader or _FAST, bounds.values)
        root = builder.build()
    except ManifestError as stop:
        return None, list(stop.findings)
    return Document(file, text, root), builder.findings


def _decode(data: bytes, file: str | None, limit: int) -> str:
    if len(data) > limit:
        raise ManifestError(
            codes.TOO_LARGE.finding(
                f"The file is larger than {limit >> 20} MiB",
                Where(file),
                expected=f"at most {limit} bytes",
            )
        )
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise ManifestError(
            codes.NOT_UTF8.finding(
                "The file is not UTF-8 text",
                _where_in(before, len(before), file),
                found=f"byte 0x{data[error.start]:02x}",
            )
        ) from None
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        raise ManifestError(
            codes.YAML_SYNTAX.finding(
                "Invalid character in YAML text",
                _where_in(text, bad.start(), file),
                found=f"U+{ord(bad.group()):04X}",
                hint="Remove the character, or write it as an escape in double quotes.",
            )
        )
    return text


def _where_in(text: str, index: int, file: str | None) -> Where:
    lines = text[:index].splitlines()
    if not lines or text[index - 1] in "\r\n":
        return Where(file, (), len(lines) + 1, 1)
    return Where(file, (), len(lines), len(lines[-1]) + 1)


@dataclass
class _Built:
    """A finished node: how many values it has with aliases expanded, and how many levels."""

    node: Node
    size: int
    height: int


class _Builder:
    """Builds the tree from PyYAML's events, one pass, no recursion deeper than the bound."""

    def __init__(self, text: str, file: str | None, loader: Any, most: int) -> None:
        self.text = text
        self.file = file
        self._most = most
        self.findings: list[Finding] = []
        self._loader = loader
        self._parser: Any = None
        self._anchors: dict[str, _Built | None] = {}
        self._written = 0

    def build(self) -> Map:
        try:
            self._parser = self._loader(self.text)
            return self._document()
        except yaml.YAMLError as error:
            raise ManifestError(
                *self.findings, explain_problem(error, self.text, self.file)
            ) from None
        except (ValueError, OverflowError):
            # PyYAML's own scanner raises these for an escape such as "\UFFFFFFFF".
            where = self._where_now()
            raise ManifestError(
                *self.findings,
                codes.YAML_SYNTAX.finding("Invalid escape: there is no such character", where),
            ) from None
        finally:
            if self._parser is not None:
                self._parser.dispose()

    def _document(self) -> Map:
        self._next()  # the start of the stream
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise ManifestError(*self.findings, self._empty())
        event = self._next()
        root = self._node(event, 1).node
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            self._report(
                codes.SEVERAL_DOCUMENTS,
                "A second YAML document starts here",
                self._spot(event),
            )
            raise ManifestError(*self.findings)
        if isinstance(root, Scalar) and root.plain and root.is_null:
            raise ManifestError(*self.findings, self._empty())
        if not isinstance(root, Map):
            self._report(
                codes.WRONG_TYPE,
                "The file is not a mapping of keys to values",
                root.spot,
                found="a list" if isinstance(root, Items) else "text",
                expected="key: value lines",
            )
            raise ManifestError(*self.findings)
        return root

    def _empty(self) -> Finding:
        return codes.EMPTY.finding("The file is empty", Where(self.file, (), 1, 1))

    def _next(self) -> Any:
        return self._parser.get_event()

    def _spot(self, event: Any) -> Spot:
        start, end = event.start_mark, event.end_mark
        return Spot(self.file, start.line + 1, start.column + 1, start.index, end.index)

    def _where_now(self) -> Where:
        mark = self._parser.get_mark() if hasattr(self._parser, "get_mark") else None
        return Where(self.file) if mark is None else Where(self.file, (), mark.line + 1)

    def _report(self, code: codes.Code, message: str, spot: Spot, **more: Any) -> None:
        self.findings.append(code.finding(message, spot.at(), **more))

    def _stop(self, code: codes.Code, message: str, spot: Spot, **more: Any) -> ManifestError:
        self._report(code, message, spot, **more)
        return ManifestError(*self.findings)

    def _node(self, event: Any, depth: int) -> _Built:
        spot = self._spot(event)
        self._written += 1
        if self._written > self._most:
            raise self._stop(
                codes.TOO_MANY_NODES,
                "The file has too many values",
                spot,
                expected=f"at most {self._most}",
                hint="Split the manifest into several.",
            )
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, spot, depth)
        if depth > MANIFEST_DEPTH:
            raise self._stop(
                codes.TOO_DEEP,
                "Mappings or lists are nested too deep",
                spot,
                expected=f"at most {MANIFEST_DEPTH} levels",
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            built = self._scalar(event, spot)
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self._sequence(event, spot, depth)
        else:
            built = self._mapping(event, spot, depth)
        if built.size > self._most:
            raise self._stop(
                codes.TOO_MANY_NODES,
                "The aliases expand to too many values",
                spot,
                found=f"{built.size} values with aliases expanded",
                expected=f"at most {self._most}",
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _alias(self, event: Any, spot: Spot, depth: int) -> _Built:
        built = self._anchors.get(event.anchor)
        if built is None:
            known = event.anchor in self._anchors
            raise self._stop(
                codes.BAD_ALIAS,
                "The alias is inside its own anchor"
                if known
                else "The alias has no anchor above it",
                spot,
            )
        if depth + built.height - 1 > MANIFEST_DEPTH:
            raise self._stop(
                codes.TOO_DEEP,
                "With the alias expanded, mappings or lists are nested too deep",
                spot,
                expected=f"at most {MANIFEST_DEPTH} levels",
            )
        return built

    def _tag(self, event: Any, kind: str, spot: Spot) -> None:
        if event.tag not in _TAGS[kind]:
            self._report(
                codes.CUSTOM_TAG,
                "YAML tags are not allowed",
                spot,
                expected="plain values, without tags",
            )

    def _scalar(self, event: Any, spot: Spot) -> _Built:
        self._tag(event, "scalar", spot)
        plain = bool(event.implicit[0]) and event.style in (None, "")
        if _SURROGATE.search(event.value):
            raise self._stop(codes.YAML_SYNTAX, "Invalid escape: it is half a character", spot)
        return _Built(Scalar(event.value, plain, spot), 1, 1)

    def _sequence(self, event: Any, spot: Spot, depth: int) -> _Built:
        self._tag(event, "seq", spot)
        items: list[Node] = []
        size = height = 1
        while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
            built = self._node(inner, depth + 1)
            items.append(built.node)
            size, height = size + built.size, max(height, built.height + 1)
        end = self._spot(inner).end if event.flow_style else _end_of(items, spot)
        spot = spot._replace(end=end)
        return _Built(Items(tuple(items), spot, bool(event.flow_style)), size, height)

    def _mapping(self, event: Any, spot: Spot, depth: int) -> _Built:
        self._tag(event, "map", spot)
        entries: dict[str, Entry] = {}
        merged: list[Map] = []
        ends: list[int] = [spot.end]
        size = height = 1
        while not isinstance(inner := self._next(), yaml.MappingEndEvent):
            key_alias = isinstance(inner, yaml.AliasEvent)
            key_spot = self._spot(inner)
            key = self._node(inner, depth + 1)
            value_event = self._next()
            value_spot = self._spot(value_event)
            value = self._node(value_event, depth + 1)
            alias = isinstance(value_event, yaml.AliasEvent)
            if not alias:
                value_spot = value.node.spot
            ends += (key_spot.end, value_spot.end)
            size += key.size + value.size
            height = max(height, key.height + 1, value.height + 1)
            name = self._key(key.node, key_spot)
            if name is None:
                continue
            if name.text == _MERGE and name.plain and not key_alias:
                merged += self._merge(value.node, value_spot)
            elif name.text in entries:
                first = entries[name.text].key.spot
                self._report(
                    codes.DUPLICATE_KEY,
                    f"Duplicate key {name.text!r}: "
                    f"first in line {first.line}, again in line {key_spot.line}",
                    key_spot,
                    found=name.text,
                )
            else:
                entries[name.text] = Entry(name, value.node, value_spot, alias)
        last = max(ends)
        end = self._spot(inner).end if event.flow_style else last
        for source in merged:
            for text, entry in source.entries.items():
                if text not in entries:
                    entries[text] = Entry(entry.key, entry.value, entry.spot, entry.alias, False)
        spot = spot._replace(end=end)
        return _Built(Map(entries, spot, bool(event.flow_style), last), size, height)

    def _key(self, node: Node, spot: Spot) -> Scalar | None:
        if isinstance(node, Scalar) and not (node.plain and node.is_null):
            return Scalar(node.text, node.plain, spot)
        found = "nothing, or null" if isinstance(node, Scalar) else describe(node)
        self._report(codes.KEY_NOT_TEXT, "A key is not text", spot, found=found)
        return None

    def _merge(self, node: Node, spot: Spot) -> Iterable[Map]:
        several = node.items if isinstance(node, Items) else (node,)
        maps = [item for item in several if isinstance(item, Map)]
        if len(maps) != len(several):
            self._report(
                codes.BAD_MERGE,
                "'<<' merges something that is not a mapping",
                spot,
                expected="a mapping, an alias of one, or a list of these",
            )
        return maps


def _end_of(items: list[Node], spot: Spot) -> int:
    return max([spot.end, *(item.spot.end for item in items)])
