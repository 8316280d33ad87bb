"""A whole set-up as one OCI artifact: its manifest and lock, its local files, all contents.

A layer with a title is a file that belongs beside the manifest, at this path. A layer without one
is a content that the lock pins by its digest: it belongs into the store. So ``skopeo`` copies a
set-up like any image, and ``oras pull`` writes the files that a person reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...manifests.bounds import FOLDER_FILES
from ..files.digests import check_paths, sha256_bytes
from ..records.entry import InvalidEntryError, parse_object
from ..records.series import canonical
from .artifact import Artifact, Blobs
from .manifest import (
    EMPTY,
    EMPTY_TYPE,
    MANIFEST_BYTES,
    Descriptor,
    InvalidManifestError,
    Manifest,
    make_manifest,
)

SETUP_TYPE = "application/vnd.adapterdock.setup.v1"
SETUP_CONFIG_TYPE = "application/vnd.adapterdock.setup.config.v1+json"
FILES_TYPE = "application/vnd.adapterdock.files.v1"
CONTENT_TYPE = "application/octet-stream"
FORMAT = 1
"""Of the config."""
MANIFEST = "manifest"
"""The key of the config with the path of the manifest."""


@dataclass(frozen=True)
class Content:
    """A file's digest and size in bytes, and its bytes or where they are."""

    digest: str
    size: int
    source: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, raw: bytes) -> Content:
        return cls(sha256_bytes(raw), len(raw), raw)


@dataclass(frozen=True)
class Setup:
    """A set-up that was read: ``manifest`` is one of the paths in ``files``; ``contents`` belong
    into the store."""

    manifest: str
    files: Mapping[str, Descriptor]
    contents: tuple[Descriptor, ...] = ()


class UnpackableError(ValueError):
    """These files cannot be one artifact; the text says why."""


def pack_setup(
    manifest: str, files: Mapping[str, Content], contents: Iterable[Content] = ()
) -> Artifact:
    """The artifact of a set-up, whose bytes depend on nothing else.

    Args:
        manifest: Which of ``files`` is the manifest.
        files: By path, what lies beside the manifest.
        contents: What the store holds.

    Raises:
        UnpackableError: A path is unsafe, or there are too many files.
    """
    if (problem := _path_problem(files)) is not None:
        raise UnpackableError(problem)
    titled = {content.digest for content in files.values()}
    others = {one.digest: one for one in contents if one.digest not in titled}
    layers = [
        *(
            Descriptor(CONTENT_TYPE, others[digest].digest, others[digest].size)
            for digest in sorted(others)
        ),
        *(Descriptor(CONTENT_TYPE, one.digest, one.size, path) for path, one in files.items()),
    ]
    raw = canonical({"format": FORMAT, MANIFEST: manifest})
    config = Descriptor.of(SETUP_CONFIG_TYPE, raw)
    made = make_manifest(SETUP_TYPE, config, layers)
    if len(layers) > FOLDER_FILES or len(made.raw) > MANIFEST_BYTES:
        raise UnpackableError(f"{len(layers)} files are more than one artifact can have")
    sources = {one.digest: one.source for one in (*others.values(), *files.values())}
    return Artifact(made, {**sources, config.digest: raw})


def pack_files(files: Mapping[str, Content]) -> Artifact:
    """The artifact of a folder that no entry describes: its files are layers with titles."""
    config = Descriptor.of(EMPTY_TYPE, EMPTY)
    layers = [Descriptor(CONTENT_TYPE, one.digest, one.size, path) for path, one in files.items()]
    sources = {one.digest: one.source for one in files.values()}
    made = make_manifest(FILES_TYPE, config, layers)
    return Artifact(made, {**sources, config.digest: EMPTY})


def read_setup(manifest: Manifest, blobs: Blobs) -> Setup:
    """The set-up that an artifact is. Raises :class:`InvalidManifestError`, and what ``blobs``
    raises."""
    if manifest.artifact_type != SETUP_TYPE or manifest.config.media_type != SETUP_CONFIG_TYPE:
        raise InvalidManifestError(f"it is a {manifest.artifact_type[:100]}, not a set-up")
    try:
        config: Mapping[str, Any] = parse_object(blobs.read(manifest.config))
    except InvalidEntryError as error:
        raise InvalidManifestError(f"its config is invalid: {error}") from None
    if config.get("format") != FORMAT or isinstance(config["format"], bool):
        raise InvalidManifestError("its format is unknown; update adapterdock")
    titled = [(layer.title, layer) for layer in manifest.layers if layer.title is not None]
    if (problem := _path_problem(title for title, _ in titled)) is not None:
        raise InvalidManifestError(problem)
    files = dict(titled)
    path = config.get(MANIFEST)
    if not isinstance(path, str) or path not in files:
        raise InvalidManifestError("it does not have the manifest that its config names")
    return Setup(path, files, tuple(one for one in manifest.layers if one.title is None))


def _path_problem(paths: Iterable[str]) -> str | None:
    """What is wrong with paths of files beside a manifest. Hidden ones are wrong: other programs
    run or trust what is in ``.git`` and the like."""
    paths = [*paths]
    if problems := check_paths(paths):
        return problems[0].message
    hidden = next((path for path in paths if any(p.startswith(".") for p in path.split("/"))), None)
    return None if hidden is None else f"Hidden path {hidden[:200]!r}"
