"""``extends``: one manifest laid over another. Maps merge, lists and scalars replace, ``null``
removes (RFC 7386's rules). Every value keeps the place that it was written at."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from ..bounds import MANIFEST_BYTES, OVERLAYS
from ..findings import language as codes
from ..findings.finding import Finding, Where
from ..language.names import did_you_mean, listed
from ..language.schema import Manifest
from .bounded_file import read_at_most
from .document import Document, compose
from .expand import matches
from .likeness import TELLING_KEYS, reads_like_ours
from .nodes import Entry, Map, Path, Scalar, describe

EXTENDS = "extends"
_NAMED: tuple[tuple[str, ...], ...] = (
    ("adapters",),
    ("compositions",),
    ("compositions", "*", "of"),
    ("registries",),
    ("mirrors",),
    ("rules", "requires"),
)
_SOURCES: tuple[tuple[str, ...], ...] = (
    ("base", "model"),
    ("adapters", "*", "source"),
    ("registries", "*"),
    ("mirrors", "*"),
)


@dataclass
class Layers:
    """A manifest and all that it extends, laid over one another."""

    root: Map
    documents: list[Document] = field(default_factory=list)
    folders: dict[str | None, FilePath] = field(default_factory=dict)
    """The folder of each file, by the name that spots know it by."""
    files: list[FilePath] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    policies: list[Entry] = field(default_factory=list)
    """The ``policy`` of each file below the first."""
    whole: bool = True
    """Whether all that is extended could be read; else what is missing may stand there."""


def overlay(base: Map, over: Map, findings: list[Finding] | None = None, path: Path = ()) -> Map:
    """``over`` laid over ``base``. A name removed that is not there is added to ``findings``."""
    entries: dict[str, Entry] = dict(base.entries)
    for key, entry in over.entries.items():
        value, below = entry.value, entries.get(key)
        if isinstance(value, Scalar) and value.is_null:
            if below is not None:
                del entries[key]
            elif findings is not None and any(matches(path, named) for named in _NAMED):
                findings.append(_nothing_to_remove(key, entry, base, path))
        elif isinstance(value, Map):
            lower = below.value if below is not None else None
            under = lower if isinstance(lower, Map) else Map({})
            merged = overlay(under, value, findings, (*path, key))
            entries[key] = replace(entry, value=merged)
        else:
            entries[key] = entry
    return Map(entries, over.spot, over.flow)


def _nothing_to_remove(key: str, entry: Entry, base: Map, path: Path) -> Finding:
    return codes.NOTHING_TO_REMOVE.finding(
        f"{key!r} is to be removed, but is not there.",
        entry.key.spot.at((*path, key)),
        found=f"{key}: null",
        expected=listed(base.entries),
        hint=did_you_mean(key, base.entries),
    )


def read_layers(
    root: Map, directory: FilePath, top: Document | None, path: FilePath | None
) -> Layers:
    """Follow ``extends`` from ``root``, which was read from ``path`` (in memory without one)."""
    layers = Layers(root)
    file = top.file if top is not None else None
    layers.folders[file] = directory
    if top is not None:
        layers.documents.append(top)
    if path is not None:
        layers.files.append(path)
    seen = {os.path.realpath(path)} if path is not None else set[str]()
    layers.root = _follow(root, file, directory, layers, seen)
    return layers


def _follow(
    root: Map, file: str | None, directory: FilePath, layers: Layers, seen: set[str]
) -> Map:
    entry = root.entries.get(EXTENDS)
    if entry is None:
        return root
    own = replace(root, entries={k: e for k, e in root.entries.items() if k != EXTENDS})
    where = entry.spot.at((EXTENDS,))
    name = _checked(entry, where, layers.findings)
    if name is None:
        layers.whole = False
        return own
    path = directory / name
    shown = os.path.normpath(os.path.join(os.path.dirname(file or ""), name))  # noqa: PTH118, PTH120
    real = os.path.realpath(path)
    if real in seen or len(seen) >= OVERLAYS:
        layers.findings.append(
            codes.EXTENDS_CYCLE.finding(
                f"{shown} is already part of the chain that extends it."
                if real in seen
                else "The chain of files that extend one another is too long.",
                where,
                found=name,
                expected=f"at most {OVERLAYS} files, each once",
            )
        )
        layers.whole = False
        return own
    seen.add(real)
    try:
        data = read_at_most(path, MANIFEST_BYTES, regular=True)
    except OSError as error:
        layers.findings.append(
            codes.EXTENDS_UNREADABLE.finding(
                f"{shown} could not be read: {error.strerror or error}.", where, found=name
            )
        )
        layers.whole = False
        return own
    document, findings = compose(data, shown)
    if not _is_manifest(document, data):
        layers.findings.append(
            codes.EXTENDS_UNREADABLE.finding(
                f"{shown} is not a manifest.",
                where,
                found=name,
                expected=f"a manifest, with keys such as {', '.join(TELLING_KEYS[:3])}",
            )
        )
        layers.whole = False
        return own
    layers.findings += findings
    layers.files.append(path)
    if document is None:
        layers.whole = False
        return own
    layers.documents.append(document)
    layers.folders.setdefault(shown, path.parent)
    if (policy := document.root.entries.get("policy")) is not None:
        layers.policies.append(policy)
    below = _follow(document.root, shown, path.parent, layers, seen)
    return overlay(below, own, layers.findings)


def _is_manifest(document: Document | None, data: bytes) -> bool:
    """Of any other file nothing is told, neither its keys nor its values."""
    if document is None:
        return reads_like_ours(data.decode("utf-8", "replace"))
    keys = set(document.root.entries)
    own = {key for key in keys if not key.startswith("x-")}
    return bool(own & {*TELLING_KEYS}) or (
        own <= Manifest.model_fields.keys() and bool(own or not keys)
    )


def _checked(entry: Entry, where: Where, findings: list[Finding]) -> str | None:
    value = entry.value
    if isinstance(value, Scalar) and isinstance(value.value, str) and value.text:
        if "://" not in value.text and "${" not in value.text and "\0" not in value.text:
            return value.text
        found = "a URL" if "://" in value.text else value.shown
    else:
        found = describe(value)
    findings.append(
        codes.BAD_EXTENDS.finding(
            "'extends' does not name one local file.",
            where,
            found=found,
            expected="a path such as ../base.yaml",
        )
    )
    return None


def rebase(root: Map, folders: Mapping[str | None, FilePath], directory: FilePath) -> Map:
    """Make relative sources that another file says count from ``directory`` as well.

    A source is relative to the file that says it; after merging they all stand in one manifest.
    """
    if all(folder == directory for folder in folders.values()):
        return root
    return _rebase(root, (), folders, directory)


def _rebase(
    node: Map, path: Path, folders: Mapping[str | None, FilePath], directory: FilePath
) -> Map:
    entries: dict[str, Entry] = {}
    for key, entry in node.entries.items():
        inner, value = (*path, key), entry.value
        if isinstance(value, Map):
            value = _rebase(value, inner, folders, directory)
        elif isinstance(value, Scalar) and any(matches(inner, p) for p in _SOURCES):
            folder = folders.get(value.spot.file, directory)
            if folder != directory and _is_relative(value):
                value = _moved(value, os.path.relpath(folder, directory))
        entries[key] = entry if value is entry.value else replace(entry, value=value)
    return replace(node, entries=entries)


def _is_relative(scalar: Scalar) -> bool:
    text = scalar.text
    return isinstance(scalar.value, str) and (text in (".", "..") or text.startswith(("./", "../")))


def _moved(scalar: Scalar, step: str) -> Scalar:
    text = posixpath.normpath(posixpath.join(FilePath(step).as_posix(), scalar.text))
    if not text.startswith(("/", "../")) and text != "..":
        text = f"./{text}"
    if scalar.text.endswith("/"):
        text += "/"
    written = scalar.text if scalar.written is None else scalar.written
    return replace(scalar, text=text, written=written)
