"""Adapters as OCI artifacts: from an entry and its files to a manifest, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...manifests.language.published_names import wrong_name
from ...manifests.language.versions import parse_version
from ..files.digests import check_paths
from ..files.disk import guarded
from ..records.entry import LIMIT, Entry, InvalidEntryError, parse_object, read_entry
from .manifest import (
    ADAPTER_TYPE,
    EMPTY,
    EMPTY_TYPE,
    ENTRY_TYPE,
    ENVELOPE_TYPE,
    MEDIA_TYPES,
    SIGNATURES_TYPE,
    Descriptor,
    InvalidManifestError,
    Manifest,
    make_manifest,
)

MOST_SIGNATURES = 64
ENVELOPE_BYTES = 1 << 20

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Artifact:
    """A manifest, and by digest each of its contents: bytes, or a local file."""

    manifest: Manifest
    contents: Mapping[str, bytes | Path]


class Blobs(Protocol):
    """Where contents are read: an archive, or a server. Both verify what they read, and raise an
    :class:`AdapterdockError` where it is missing or other than its descriptor says."""

    def read(self, descriptor: Descriptor) -> bytes:
        """A small content, completely."""
        ...

    def copy(self, descriptor: Descriptor, into: Path, on_bytes: OnBytes | None = None) -> None:
        """Write a content into a new file. An unverified one is removed again."""
        ...


def entry_of(raw: bytes) -> Entry:
    """The entry in these bytes, of whatever name and version. Raises :class:`InvalidEntryError`."""
    data = parse_object(raw)
    name, version = data.get("name"), data.get("version")
    problem = wrong_name(name) if isinstance(name, str) else "it is not a text"
    if not isinstance(name, str) or problem is not None:
        raise InvalidEntryError(f"name: {problem}")
    if not isinstance(version, str) or parse_version(version) is None:
        raise InvalidEntryError("version: it is not a version")
    return read_entry(raw, name, version)


def adapter_manifest(raw: bytes) -> Manifest:
    """The manifest of the adapter with this entry. Raises :class:`InvalidEntryError`."""
    entry = entry_of(raw)
    return make_manifest(ADAPTER_TYPE, Descriptor.of(ENTRY_TYPE, raw), _layers(entry))


def pack_adapter(raw: bytes, files: Mapping[str, bytes | Path]) -> Artifact:
    """The artifact of the adapter with this entry; ``files`` has each of the entry's files by its
    path. Raises :class:`InvalidEntryError`."""
    manifest = adapter_manifest(raw)
    missing = [layer.title for layer in manifest.layers if layer.title not in files]
    if missing:
        raise InvalidEntryError(f"files: {missing[0]!r} is missing")
    layers = {layer.digest: files[layer.title or ""] for layer in manifest.layers}
    return Artifact(manifest, {manifest.config.digest: raw, **layers})


def pack_signatures(subject: Manifest, envelopes: Iterable[bytes]) -> Artifact:
    """The artifact of these signatures of another artifact's entry."""
    contents = {Descriptor.of(ENVELOPE_TYPE, raw): raw for raw in envelopes}
    config = Descriptor.of(EMPTY_TYPE, EMPTY)
    layers = sorted(contents, key=lambda layer: layer.digest)
    manifest = make_manifest(SIGNATURES_TYPE, config, layers, subject.descriptor)
    found = {layer.digest: contents[layer] for layer in layers}
    return Artifact(manifest, {config.digest: EMPTY, **found})


def signatures_tag(subject: str) -> str:
    """The tag of the signatures of the artifact with this digest, for servers that do not list
    what refers to it (distribution-spec, "Referrers Tag Schema")."""
    return subject.replace(":", "-")


def read_adapter(manifest: Manifest, blobs: Blobs) -> tuple[Entry, bytes]:
    """The entry of an artifact, and its bytes. Raises :class:`InvalidManifestError` where the
    artifact is not an adapter, or its layers are not the entry's files."""
    if manifest.artifact_type != ADAPTER_TYPE or manifest.config.media_type != ENTRY_TYPE:
        raise InvalidManifestError(f"it is a {manifest.artifact_type[:100]}, not an adapter")
    if manifest.config.size > LIMIT:
        raise InvalidManifestError(f"its entry has more than {LIMIT} bytes")
    raw = blobs.read(manifest.config)
    try:
        entry = entry_of(raw)
        expected = _layers(entry)
    except InvalidEntryError as error:
        raise InvalidManifestError(f"its entry is invalid: {error}") from None
    if sorted(map(_content, manifest.layers)) != sorted(map(_content, expected)):
        raise InvalidManifestError("its layers are not the files of its entry")
    return entry, raw


def read_signatures(manifest: Manifest, subject: str, blobs: Blobs) -> list[bytes]:
    """The envelopes of an artifact that signs the one with the digest ``subject``. Raises
    :class:`InvalidManifestError`."""
    if manifest.artifact_type != SIGNATURES_TYPE:
        raise InvalidManifestError(f"it is a {manifest.artifact_type[:100]}, not signatures")
    if manifest.subject is None or manifest.subject.digest != subject:
        raise InvalidManifestError("it signs another artifact")
    layers = manifest.layers[:MOST_SIGNATURES]
    if any(layer.size > ENVELOPE_BYTES for layer in layers):
        raise InvalidManifestError(f"a signature has more than {ENVELOPE_BYTES} bytes")
    return [blobs.read(layer) for layer in layers]


def unpack_files(
    entry: Entry, blobs: Blobs, into: Path, on_bytes: OnBytes | None = None
) -> dict[str, Path]:
    """Write the files of an entry below ``into``, verified; by path, where each is.

    Raises what ``blobs`` raises, and :class:`StoreError` where a folder cannot be made. Then some
    files are there already, so ``into`` is best a new folder that is renamed at the end.
    """
    written: dict[str, Path] = {}
    for layer in _layers(entry):
        path = layer.title or ""
        written[path] = into / path
        with guarded(written[path]):
            written[path].parent.mkdir(parents=True, exist_ok=True)
        blobs.copy(layer, written[path], on_bytes)
    return written


def _layers(entry: Entry) -> list[Descriptor]:
    problems = check_paths(file.path for file in entry.files)
    if problems:
        raise InvalidEntryError(f"files: {problems[0].message}")
    return [
        Descriptor(MEDIA_TYPES[file.role], file.sha256, file.size, file.path)
        for file in entry.files
    ]


def _content(layer: Descriptor) -> tuple[str, str, int]:
    """What must agree. Another tool may have named another media type."""
    return layer.title or "", layer.digest, layer.size
