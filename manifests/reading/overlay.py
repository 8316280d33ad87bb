"""``extends``: one manifest laid over another. Mappings are merged, lists and scalars replaced, and
``null`` removes (RFC 7386's rules). Every value keeps the place where it is written."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from ..bounds import MANIFEST_BYTES, OVERLAYS
from ..findings import language as codes
from ..findings.errors import ManifestError
from ..findings.finding import Finding, Where
from ..language.names import did_you_mean, listed
from ..language.schema import Manifest
from .bounded_file import read_at_most
from .document import Document, compose
from .expand import matches
from .likeness import TELLING_KEYS, reads_like_ours
from .nodes import Entry, Map, Node, Path, Scalar, describe

EXTENDS = "extends"
_ARCHIVE = "oci-archive:"
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
    """A manifest and everything that it extends, merged."""

    root: Map
    directory: FilePath
    """The folder of the manifest itself."""
    file: str | None = None
    """Its name in findings; ``None`` in memory."""
    documents: list[Document] = field(default_factory=list)
    folders: dict[str | None, FilePath] = field(default_factory=dict)
    """The folder of each file, by its name in spots."""
    files: list[FilePath] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    policies: list[Entry] = field(default_factory=list)
    """The ``policy`` of each file but the first."""
    complete: bool = True
    """Whether every extended file could be read; otherwise what is missing may be in it."""


def overlay(base: Map, over: Map, findings: list[Finding] | None = None, path: Path = ()) -> Map:
    """``over`` laid over ``base``. Removing a name that does not exist is added to ``findings``."""
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
        f"Cannot remove {key!r}: it does not exist",
        entry.key.spot.at((*path, key)),
        found=f"{key}: null",
        expected=listed(base.entries),
        hint=did_you_mean(key, base.entries),
    )


def layers_in_memory(root: Map, directory: FilePath) -> Layers:
    """Follow ``extends`` from the tree of a manifest in memory."""
    layers = Layers(root, directory, folders={None: directory})
    layers.root = _follow(root, None, directory, layers)
    return layers


def layers_of_file(document: Document, path: FilePath) -> Layers:
    """Follow ``extends`` from ``document``, which was read from ``path``."""
    layers = Layers(document.root, path.parent, document.file, [document], files=[path])
    layers.folders[document.file] = path.parent
    layers.root = _follow(document.root, document.file, path.parent, layers)
    return layers


def _follow(root: Map, file: str | None, directory: FilePath, layers: Layers) -> Map:
    entry = root.entries.get(EXTENDS)
    if entry is None:
        return root
    own = replace(root, entries={k: e for k, e in root.entries.items() if k != EXTENDS})
    try:
        document, path = _read_extended(entry, file, directory, layers)
    except ManifestError as error:
        layers.findings += error.findings
        layers.complete = False
        return own
    layers.files.append(path)
    layers.documents.append(document)
    layers.folders.setdefault(document.file, path.parent)
    if (policy := document.root.entries.get("policy")) is not None:
        layers.policies.append(policy)
    below = _follow(document.root, document.file, path.parent, layers)
    return overlay(below, own, layers.findings)


def _read_extended(
    entry: Entry, file: str | None, directory: FilePath, layers: Layers
) -> tuple[Document, FilePath]:
    """The file that ``extends`` in ``file`` names. Raises :class:`ManifestError`."""
    where = entry.spot.at((EXTENDS,))
    name = _one_file(entry.value, where)
    path = directory / name
    shown = os.path.normpath(os.path.join(os.path.dirname(file or ""), name))  # noqa: PTH118, PTH120
    seen = {os.path.realpath(file) for file in layers.files}
    again = os.path.realpath(path) in seen
    if again or len(seen) >= OVERLAYS:
        raise ManifestError(
            codes.EXTENDS_CYCLE.finding(
                f"{shown} extends itself" if again else "The chain of `extends` is too long",
                where,
                found=name,
                expected=f"at most {OVERLAYS} files, each once",
            )
        )
    try:
        data = read_at_most(path, MANIFEST_BYTES, regular=True)
    except OSError as error:
        said = f"Cannot read {shown}: {error.strerror or error}"
        finding = codes.EXTENDS_UNREADABLE.finding(said, where, found=name)
        raise ManifestError(finding) from error
    document, findings = compose(data, shown)
    if not _is_manifest(document, data):
        raise ManifestError(
            codes.EXTENDS_UNREADABLE.finding(
                f"{shown} is not a manifest",
                where,
                found=name,
                expected=f"a manifest, with keys such as {', '.join(TELLING_KEYS[:3])}",
            )
        )
    if document is None:
        raise ManifestError(*findings)
    layers.findings += findings
    return document, path


def _is_manifest(document: Document | None, data: bytes) -> bool:
    """Of any other file nothing may be shown, neither its keys nor its values."""
    if document is None:
        return reads_like_ours(data.decode("utf-8", "replace"))
    keys = set(document.root.entries)
    own = {key for key in keys if not key.startswith("x-")}
    return bool(own & {*TELLING_KEYS}) or (
        own <= Manifest.model_fields.keys() and bool(own or not keys)
    )


def _one_file(value: Node, where: Where) -> str:
    if isinstance(value, Scalar) and isinstance(value.value, str) and value.text:
        if not any(part in value.text for part in ("://", "${", "\0")):
            return value.text
        found = "a URL" if "://" in value.text else value.shown
    else:
        found = describe(value)
    raise ManifestError(
        codes.BAD_EXTENDS.finding(
            "Invalid 'extends': it takes one local file",
            where,
            found=found,
            expected="a path such as ../base.yaml",
        )
    )


def rebase(root: Map, folders: Mapping[str | None, FilePath], directory: FilePath) -> Map:
    """Make the relative sources of other files relative to ``directory``.

    A source is relative to the file that it is written in; merged, all are in one manifest.
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
    if not isinstance(scalar.value, str):
        return False
    if text.startswith(_ARCHIVE):
        return not text.removeprefix(_ARCHIVE).startswith(("/", "~"))
    return text in (".", "..") or text.startswith(("./", "../"))


def _moved(scalar: Scalar, step: str) -> Scalar:
    archive = _ARCHIVE if scalar.text.startswith(_ARCHIVE) else ""
    place = scalar.text.removeprefix(archive)
    text = posixpath.normpath(posixpath.join(FilePath(step).as_posix(), place))
    if not text.startswith(("/", "../")) and text != "..":
        text = f"./{text}"
    text = archive + text
    if scalar.text.endswith("/"):
        text += "/"
    written = scalar.text if scalar.written is None else scalar.written
    return replace(scalar, text=text, written=written)
