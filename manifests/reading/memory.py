"""A manifest in memory: plain data to a tree, within the limits of the YAML reader."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from ..bounds import MANIFEST_DEPTH, MANIFEST_VALUES
from ..findings import language as codes
from ..findings.errors import ManifestError
from ..findings.finding import Where
from .nodes import NOWHERE, Entry, Items, Map, Node, Path, Scalar


def from_python(value: Any) -> Node:
    """The tree of plain data; all text counts as quoted.

    Raises :class:`ManifestError` for data that is too large or too deep (it may contain itself),
    and for a key that is not text.
    """
    return _node(value, (), count())


def _node(value: Any, path: Path, counted: count[int]) -> Node:
    if len(path) >= MANIFEST_DEPTH:
        where = Where(path=path[:8])
        raise ManifestError(codes.TOO_DEEP.finding("Mappings or lists are nested too deep", where))
    if next(counted) > MANIFEST_VALUES:
        raise ManifestError(codes.TOO_MANY_NODES.finding("The mapping has too many values"))
    if isinstance(value, Mapping):
        entries: dict[str, Entry] = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ManifestError(
                    codes.KEY_NOT_TEXT.finding(
                        "A key is not text", Where(path=path), found=repr(key)[:80]
                    )
                )
            node = _node(inner, (*path, key), counted)
            entries[str(key)] = Entry(Scalar(str(key), False), node, NOWHERE)
        return Map(entries)
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
        return Items(tuple(_node(inner, (*path, index), counted) for index, inner in items))
    if isinstance(value, str):
        return Scalar(str(value), False)
    return Scalar(str(value), False, native=value)
