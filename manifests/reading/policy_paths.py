"""Paths in a policy: relative to the file that has them, and absolute from here on.

A policy is compared with manifests in other folders, so its keys and registries cannot wait for
the folder of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath

from ..language.source import ARCHIVE
from .expand import matches
from .nodes import Items, Map, Node, Path, Scalar, scalars
from .scalars import NOT_NATIVE

_KEYS: tuple[tuple[str, ...], ...] = (
    ("registries", "*", "keys", "*"),
    ("require_signature", "keys", "*"),
    ("require_model_signature", "keys", "*"),
)
_URL = ("registries", "*", "url")
_ARCHIVE = f"{ARCHIVE}:"
_PEM = "-----BEGIN "


def absolute_paths(policy: Map, folder_of: Callable[[Scalar], FilePath]) -> Map:
    """The tree of a policy with absolute paths. ``folder_of`` is the folder of the file that a
    value is written in."""
    found = _absolute(policy, (), folder_of)
    assert isinstance(found, Map)
    return found


def key_files(policy: Map) -> Iterator[Scalar]:
    """The keys in a policy that are paths: absolute, and ``written`` as in the file."""
    for path, scalar in scalars(policy):
        steps = tuple("*" if isinstance(step, int) else step for step in path)
        if any(matches(steps, key) for key in _KEYS) and _PEM not in scalar.text:
            yield scalar


def _absolute(node: Node, path: Path, folder_of: Callable[[Scalar], FilePath]) -> Node:
    if isinstance(node, Map):
        return replace(
            node,
            entries={
                key: replace(entry, value=_absolute(entry.value, (*path, key), folder_of))
                for key, entry in node.entries.items()
            },
        )
    if isinstance(node, Items):
        items = (_absolute(item, (*path, "*"), folder_of) for item in node.items)
        return replace(node, items=tuple(items))
    scheme, inner = (_ARCHIVE if node.text.startswith(_ARCHIVE) else ""), node.text
    inner = inner.removeprefix(scheme)
    if not isinstance(node.value, str) or not _is_relative(path, inner, bool(scheme)):
        return node
    text = scheme + (folder_of(node).absolute() / inner).as_posix()
    written = node.text if node.written is None else node.written
    return replace(node, text=text, plain=False, native=NOT_NATIVE, written=written)


def _is_relative(path: Path, text: str, is_archive: bool) -> bool:
    if any(matches(path, key) for key in _KEYS):
        return bool(text) and not text.startswith("~") and _PEM not in text
    if is_archive:
        return matches(path, _URL) and not text.startswith(("/", "~"))
    is_local = text in (".", "..") or text.startswith(("./", "../"))
    return matches(path, _URL) and is_local
