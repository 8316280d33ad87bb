"""OCI image manifests of adapters: deterministic when written, checked strictly when read.

See https://github.com/opencontainers/image-spec (v1.1, "Image Manifest" and "Content Descriptors").
A manifest's config is the entry, byte for byte; its layers are the files, in the order of their
paths, and the only annotation is a file's path. So equal adapters have equal manifests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...manifests.bounds import FOLDER_FILES, MIB
from ..files.digests import is_digest, sha256_bytes
from ..records.entry import InvalidEntryError, Role, parse_object
from ..records.series import canonical

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
ADAPTER_TYPE = "application/vnd.adapterdock.adapter.v1"
ENTRY_TYPE = "application/vnd.adapterdock.entry.v1+json"
SIGNATURES_TYPE = "application/vnd.adapterdock.signatures.v1"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
TITLE = "org.opencontainers.image.title"

MANIFEST_BYTES = 4 * MIB
"""Bytes of a manifest or an index; the distribution protocol lets registries refuse more."""
EMPTY = b"{}"
"""The config of an artifact that has none (image-spec, "Guidance for an Empty Descriptor")."""
_LONGEST = 255
_LARGEST = (1 << 63) - 1

MEDIA_TYPES: Mapping[Role, str] = {
    "weights": "application/vnd.cncf.model.weight.v1.raw",
    "config": "application/vnd.cncf.model.weight.config.v1.raw",
    "tokenizer": "application/vnd.cncf.model.weight.config.v1.raw",
    "template": "application/vnd.cncf.model.weight.config.v1.raw",
    "card": "application/vnd.cncf.model.doc.v1.raw",
    "other": "application/octet-stream",
}
"""By role, the media type of a file (https://github.com/modelpack/model-spec)."""


class InvalidManifestError(ValueError):
    """The bytes are not a manifest that can be used; the text says why."""


@dataclass(frozen=True)
class Descriptor:
    """A content: its type, digest and size in bytes, and the path of the file that it is."""

    media_type: str
    digest: str
    size: int
    title: str | None = None

    @classmethod
    def of(cls, media_type: str, content: bytes, title: str | None = None) -> Descriptor:
        """That of these bytes."""
        return cls(media_type, sha256_bytes(content), len(content), title)

    def as_dict(self) -> dict[str, Any]:
        """As JSON of a manifest."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        return found if self.title is None else {**found, "annotations": {TITLE: self.title}}


@dataclass(frozen=True)
class Manifest:
    """One artifact. ``raw`` are the bytes that its digest is of."""

    raw: bytes
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(MANIFEST_TYPE, self.raw)

    @property
    def digest(self) -> str:
        return sha256_bytes(self.raw)

    @property
    def contents(self) -> tuple[Descriptor, ...]:
        """Config and layers, each content once."""
        every = {one.digest: one for one in (self.config, *self.layers)}
        return tuple(every.values())


def make_manifest(
    artifact_type: str,
    config: Descriptor,
    layers: Iterable[Descriptor],
    subject: Descriptor | None = None,
) -> Manifest:
    """The manifest of these contents, whose bytes depend on nothing else."""
    ordered = tuple(sorted(layers, key=lambda layer: (layer.title or "").encode()))
    data: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": config.as_dict(),
        "layers": [layer.as_dict() for layer in ordered],
    }
    if subject is not None:
        data["subject"] = subject.as_dict()
    return Manifest(canonical(data), artifact_type, config, ordered, subject)


def read_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes. Raises :class:`InvalidManifestError`."""
    data = _object(raw)
    if data.get("schemaVersion") != 2 or isinstance(data["schemaVersion"], bool):
        raise InvalidManifestError("its schemaVersion is not 2")
    if data.get("mediaType", MANIFEST_TYPE) != MANIFEST_TYPE:
        raise InvalidManifestError(f"its mediaType is not {MANIFEST_TYPE}")
    config = read_descriptor(data.get("config"), "config")
    layers = data.get("layers")
    if not isinstance(layers, list) or len(layers) > FOLDER_FILES:
        raise InvalidManifestError(f"its layers are not a list of at most {FOLDER_FILES}")
    artifact_type = data.get("artifactType", config.media_type)
    if not isinstance(artifact_type, str) or len(artifact_type) > _LONGEST:
        raise InvalidManifestError("its artifactType is not a media type")
    subject = data.get("subject")
    return Manifest(
        raw,
        artifact_type,
        config,
        tuple(read_descriptor(one, f"layers[{i}]") for i, one in enumerate(layers)),
        None if subject is None else read_descriptor(subject, "subject"),
    )


def read_index(raw: bytes) -> list[tuple[Descriptor, Mapping[str, str]]]:
    """What an index lists, each with its annotations. Raises :class:`InvalidManifestError`."""
    data = _object(raw)
    if data.get("schemaVersion") != 2 or isinstance(data["schemaVersion"], bool):
        raise InvalidManifestError("its schemaVersion is not 2")
    listed = data.get("manifests")
    if not isinstance(listed, list) or len(listed) > FOLDER_FILES:
        raise InvalidManifestError(f"its manifests are not a list of at most {FOLDER_FILES}")
    return [
        (read_descriptor(one, f"manifests[{i}]"), _annotations(one)) for i, one in enumerate(listed)
    ]


def make_index(listed: Iterable[tuple[Descriptor, Mapping[str, str]]]) -> bytes:
    """The bytes of an index, in the order given."""
    manifests = [{**one.as_dict(), "annotations": dict(notes)} for one, notes in listed]
    return canonical({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})


def read_descriptor(data: Any, place: str) -> Descriptor:
    """The descriptor in this JSON value. Raises :class:`InvalidManifestError`."""
    if not isinstance(data, dict):
        raise InvalidManifestError(f"{place} is not a descriptor")
    media_type, digest, size = data.get("mediaType"), data.get("digest"), data.get("size")
    if not isinstance(media_type, str) or not 0 < len(media_type) <= _LONGEST:
        raise InvalidManifestError(f"{place} has no mediaType")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifestError(f"{place} has no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise InvalidManifestError(f"{place} has no size")
    return Descriptor(media_type, digest, size, _annotations(data).get(TITLE))


def _annotations(data: Mapping[str, Any]) -> Mapping[str, str]:
    notes = data.get("annotations") or {}
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise InvalidManifestError("its annotations are not texts")
    return notes


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw, MANIFEST_BYTES)
    except InvalidEntryError as error:
        raise InvalidManifestError(str(error)) from None
