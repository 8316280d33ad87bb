"""A registry in an archive: the part of one that a bundle has, read-only.

It is an OCI artifact whose layers are the registry's files, with their paths as titles: the
identity, entries, values of aliases, marks and signatures, byte for byte, and the contents.
"""

from __future__ import annotations

import errno
import weakref
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ..files.digests import PREFIX, check_paths
from ..files.facts import FileFact
from ..sources.failures import scrub, source_error
from ..sources.opened import OpenedFolder
from ..sources.request import SourceRequest
from ..storages.layout import BLOBS, IDENTITY, blob_file
from .artifact import Artifact
from .content import Checked
from .layout import GET_AGAIN, OciLayout
from .manifest import EMPTY, EMPTY_TYPE, Descriptor, Manifest, make_manifest
from .setup_artifact import CONTENT_TYPE, Content

REGISTRY_TYPE = "application/vnd.adapterdock.registry.v1"


def pack_registry(files: Mapping[str, bytes], contents: Mapping[str, Content]) -> Artifact:
    """The artifact of a part of a registry.

    Args:
        files: By path in the registry, all but the contents.
        contents: By digest.
    """
    every = {path: Content.of(raw) for path, raw in files.items()}
    every |= {blob_file(digest): content for digest, content in contents.items()}
    config = Descriptor.of(EMPTY_TYPE, EMPTY)
    layers = [Descriptor(CONTENT_TYPE, one.digest, one.size, path) for path, one in every.items()]
    sources = {one.digest: one.source for one in every.values()}
    return Artifact(make_manifest(REGISTRY_TYPE, config, layers), {**sources, config.digest: EMPTY})


class ArchiveStorage:
    """See :class:`Storage`. The file stays open as long as this object lives.

    Args:
        path: The archive.
        reference: The name of the registry's artifact in it; by default the only one.
        where: The place in the manifest, for findings.

    Raises:
        SourceError: It is not an archive, or has no such registry.
    """

    def __init__(self, path: Path, reference: str | None, where: Where) -> None:
        self._where = where
        self._url = scrub(f"oci-archive:{path}" + (f":{reference}" if reference else ""))
        self._layout = OciLayout(path)
        weakref.finalize(self, self._layout.close)
        self._files = self._read(reference)

    @property
    def url(self) -> str:
        return self._url

    @property
    def creates(self) -> bool:
        return False

    @property
    def lists(self) -> bool:
        return True

    def read(self, path: str, limit: int) -> bytes:
        descriptor = self._descriptor(path)
        stop = min(limit, descriptor.size)
        return b"".join(self._stream(descriptor, stop))

    def chunks(self, path: str) -> Iterator[bytes]:
        descriptor = self._descriptor(path)
        return self._stream(descriptor, descriptor.size)

    def find(self, folder: str) -> Mapping[str, int]:
        start = f"{folder}/" if folder else ""
        return {path: one.size for path, one in self._files.items() if path.startswith(start)}

    def times(self, folder: str) -> Mapping[str, float]:
        return dict.fromkeys(self.find(folder), 0.0)  # all of it was created at once

    def create(self, path: str, content: bytes | Path) -> None:
        self._refuse("write", path)

    def remove(self, path: str) -> None:
        self._refuse("remove", path)

    def _descriptor(self, path: str) -> Descriptor:
        descriptor = self._files.get(path)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", f"{self._url}/{path}")
        return descriptor

    def _stream(self, descriptor: Descriptor, stop: int) -> Generator[bytes]:
        """The first ``stop`` bytes; verified if these are all."""
        check = Checked(descriptor, hint=GET_AGAIN)
        for chunk in self._layout.stream(descriptor, 0, stop):
            check.add(chunk)
            yield chunk
        if stop == descriptor.size:
            check.finish()

    def _read(self, reference: str | None) -> Mapping[str, Descriptor]:
        """By path, the files of the registry."""
        named = [self._layout.find(reference)] if reference else self._layout.names.values()
        found = [
            one for one in map(self._layout.manifest, named) if one.artifact_type == REGISTRY_TYPE
        ]
        if len(found) != 1:
            raise self._no_registry(f"it has {len(found) or 'no'} registries")
        (manifest,) = found
        return self._checked(manifest)

    def _checked(self, manifest: Manifest) -> Mapping[str, Descriptor]:
        titles = [layer.title or "" for layer in manifest.layers]
        if problems := check_paths(titles):
            raise self._no_registry(problems[0].message)
        files = dict(zip(titles, manifest.layers, strict=True))
        if IDENTITY not in files:
            raise self._no_registry(f"it has no {IDENTITY}")
        for path, layer in files.items():
            if path.startswith(f"{BLOBS}/") and path != blob_file(layer.digest):
                raise self._no_registry(f"{path} is another content")
        return files

    def _no_registry(self, why: str) -> SourceError:
        return source_error(
            codes.NOT_A_REGISTRY, f"Cannot use a registry of {self._url}: {why}", self._where
        )

    def _refuse(self, doing: str, path: str) -> NoReturn:
        raise source_error(
            codes.STORAGE_READ_ONLY,
            f"Cannot {doing} {self._url}/{path}: a registry in an archive can only be read",
            self._where,
            expected="a local folder, s3://, az:// or gs://",
        )


class ArchiveContents(OpenedFolder):
    """The contents in an archive, whose names are the hex digits of their digests; see
    :meth:`OpenedFolder.expect`."""

    _waits: ClassVar[bool] = False

    def __init__(self, request: SourceRequest, path: Path) -> None:
        super().__init__(request)
        self._layout = OciLayout(path)
        weakref.finalize(self, self._layout.close)

    def _list(self) -> list[FileFact]:
        return []

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        content = Descriptor("", PREFIX + fact.path, fact.size, fact.path)
        for chunk in self._layout.stream(content, start, stop):
            self._received(len(chunk))
            yield chunk
