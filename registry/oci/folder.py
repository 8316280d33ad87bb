"""OCI artifacts as folders: one in an OCI registry, or one in an archive.

The files are those of the entry that an adapter's artifact has. An artifact of another tool has
files where each of its layers has a title, as ``oras push`` writes them. Whatever is transferred
completely is verified against its digest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.store import WRONG_DIGEST
from ...manifests.language.source import Source, SourceSyntaxError
from ..files.digests import check_paths, sha256_bytes
from ..files.facts import FileFact
from ..sources.failures import source_error
from ..sources.opened import OpenedFolder
from ..sources.ranges import BadRangeError
from ..sources.request import SourceRequest
from .artifact import Blobs, read_adapter
from .client import OciClient, reference_of
from .layout import OciLayout
from .login import login_for
from .manifest import ADAPTER_TYPE, Descriptor, InvalidManifestError, Manifest


class OciFolder(OpenedFolder):
    """The files of one artifact. A kind reads its manifest and its contents.

    A lock pins the digest of the manifest, which pins every file.
    """

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        request.only_options()

    @abstractmethod
    def _read_manifest(self) -> Manifest:
        """The manifest of the artifact that the lock pins, else of the one that is named."""

    @abstractmethod
    def _entry_files(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        """:func:`layers_of` with what reads the artifact's contents."""

    @property
    def pinned(self) -> Source:
        return self._source.at(self.revision)

    @property
    def revision(self) -> str:
        """The digest of the manifest."""
        return self._known or self._manifest.digest

    @property
    def _known(self) -> str | None:
        """The digest that the lock or the source itself names."""
        return self._request.revision or self._source.revision

    @cached_property
    def _manifest(self) -> Manifest:
        manifest = self._read_manifest()
        if self._known not in (None, manifest.digest):
            raise IntegrityError(
                WRONG_DIGEST.finding(
                    f"{self._shown()}: the manifest has another digest",
                    self._where,
                    found=manifest.digest,
                    expected=self._known,
                )
            )
        return manifest

    @cached_property
    def _layers(self) -> dict[str, Descriptor]:
        """The files, by path."""
        try:
            layers = self._entry_files(self._manifest)
        except InvalidManifestError as error:
            raise source_error(
                codes.OCI_ARTIFACT_INVALID,
                f"Cannot use the artifact {self._shown()}: {error}",
                self._where,
            ) from error
        return {layer.title or "": layer for layer in layers}

    def files(self) -> Mapping[str, FileFact]:
        self._layers  # noqa: B018 - what is wrong with the artifact is raised here
        return super().files()

    def _list(self) -> Iterable[FileFact]:
        return [FileFact(path, one.size, one.digest) for path, one in self._layers.items()]

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        found = super().read(path, start, length)
        fact = self._fact(path)
        if len(found) == fact.size and sha256_bytes(found) != fact.sha256:
            raise IntegrityError(
                WRONG_DIGEST.finding(
                    f"{self._shown(path)} has another digest than its manifest says",
                    self._where,
                    found=sha256_bytes(found),
                    expected=fact.sha256,
                )
            )
        return found

    def _descriptor(self, fact: FileFact) -> Descriptor:
        assert fact.sha256 is not None  # every layer has a digest
        return Descriptor("", fact.sha256, fact.size, fact.path)


class RegistryFolder(OciFolder):
    """``oci://HOST/REPOSITORY:TAG`` or ``@sha256:HEX``, with docker's login for the host."""

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        self._reference = reference_of(str(request.source), request.where)

    @cached_property
    def _client(self) -> OciClient:
        request = self._request
        return OciClient(
            self._reference,
            login_for(self._reference.host),
            offline=request.offline,
            permits=request.permits,
            where=request.where,
        )

    def _read_manifest(self) -> Manifest:
        return self._client.manifest(self._known or self._reference.tag or DEFAULT_TAG)

    def _entry_files(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        return layers_of(manifest, self._client)

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        try:
            yield from self._client.stream(self._descriptor(fact), start, stop, self._received)
        except BadRangeError as error:
            raise self._error(
                source_codes.BAD_ANSWER,
                f"{self._shown(fact.path)}: the registry sent other bytes than requested",
                found=error,
                expected=f"bytes {start}-{stop - 1} of {fact.size}",
            ) from error


class ArchiveFolder(OciFolder):
    """``oci-archive:FILE[:REFERENCE]``; the file is opened for each access, and never extracted."""

    _waits: ClassVar[bool] = False

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        self._archive = archive_path(request)

    def _read_manifest(self) -> Manifest:
        with OciLayout(self._archive) as layout:
            return layout.manifest(layout.find(self._known or self._source.path or None))

    def _entry_files(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        with OciLayout(self._archive) as layout:
            return layers_of(manifest, layout)

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        with OciLayout(self._archive) as layout:
            for chunk in layout.stream(self._descriptor(fact), start, stop):
                self._received(len(chunk))
                yield chunk


DEFAULT_TAG = "latest"
"""The tag of a reference that names none, as for docker."""


def layers_of(manifest: Manifest, blobs: Blobs) -> tuple[Descriptor, ...]:
    """The layers that are an adapter's files. Raises :class:`InvalidManifestError`."""
    if manifest.artifact_type == ADAPTER_TYPE:
        read_adapter(manifest, blobs)
        return manifest.layers
    if not manifest.layers or any(layer.title is None for layer in manifest.layers):
        raise InvalidManifestError(
            f"it is a {manifest.artifact_type[:100]}, and its layers have no file names"
        )
    if problems := check_paths(layer.title or "" for layer in manifest.layers):
        raise InvalidManifestError(problems[0].message)
    return manifest.layers


def archive_path(request: SourceRequest) -> Path:
    """The file of an ``oci-archive:`` source."""
    try:
        return request.source.local_path(request.directory)
    except SourceSyntaxError as error:
        raise source_error(
            codes.OCI_ARCHIVE_INVALID, f"Cannot find {request.source}: {error}", request.where
        ) from error
