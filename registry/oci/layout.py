"""OCI image layouts in one tar file (``out.oci.tar``): written deterministically, read in place.

See https://github.com/opencontainers/image-spec (v1.1, "Image Layout"). Nothing is ever extracted
by the name of a member: contents are found by digest, and written only where the caller says.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, cast

from ...manifests.bounds import FOLDER_FILES, MIB
from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings import store as store_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, SourceError
from ...manifests.findings.finding import Where
from ...manifests.owner import left_beside, made_beside
from ..files.digests import CHUNK, PREFIX, sha256_bytes
from ..files.disk import guarded, remove, sync_file, sync_folder, writing
from ..records.entry import InvalidEntryError, parse_object
from ..records.series import canonical
from .artifact import Artifact, OnBytes
from .content import Checked, removed_on_failure, wrong_content
from .manifest import (
    MANIFEST_BYTES,
    MANIFEST_TYPE,
    Descriptor,
    InvalidManifestError,
    Manifest,
    make_index,
    read_index,
    read_manifest,
)

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs/sha256/"
MEMBERS = 4 * FOLDER_FILES
"""Members of a tar file that is read."""
HEADERS = 64 * MIB
"""Bytes of all its headers together."""
CANNOT_WRITE = "Cannot write the archive"
GET_AGAIN = (
    "Get the archive again, and compare its SHA-256 with that of where it was written. If they are "
    "the same, it was written wrong or changed: do not use it."
)
"""What to do about a content of an archive that is not what its digest says."""
_VERSION = {"imageLayoutVersion": "1.0.0"}
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")


def write_layout(
    path: Path, artifacts: Mapping[str, Artifact], on_bytes: OnBytes | None = None
) -> str:
    """Write these artifacts, by their reference names, into a new tar file.

    Equal artifacts give equal bytes. A file that has the name already is replaced, once all is
    written.

    Args:
        path: Where; the file appears only when it is complete.
        artifacts: What ``skopeo`` calls the image of an archive is the key.
        on_bytes: Gets the number of bytes after each write.

    Returns:
        ``sha256:HEX`` of the file.

    Raises:
        IntegrityError: A content is not what its manifest says, or is missing.
        UsageError: The file cannot be written there.
        StoreError: A content cannot be read.
    """
    contents: dict[str, tuple[Descriptor, bytes | Path]] = {}
    listed: list[tuple[Descriptor, Mapping[str, str]]] = []
    for name, artifact in sorted(artifacts.items()):
        manifest = artifact.manifest
        listed.append((manifest.descriptor, {REF_NAME: name}))
        contents[manifest.digest] = (manifest.descriptor, manifest.raw)
        for one in manifest.contents:
            if one.digest not in artifact.contents:
                raise wrong_content(store_codes.OBJECT_MISSING, one, "is missing", None, None)
            contents[one.digest] = (one, artifact.contents[one.digest])
    for left in left_beside(path, ""):  # of a process that was killed
        remove(left)
    new = made_beside(path, "")
    try:
        with writing(path, usage_codes.UNWRITABLE, CANNOT_WRITE):
            with new.open("xb") as file:
                hashed = _Hashing(file, on_bytes)
                _write(hashed, listed, contents)
            sync_file(new)
            new.replace(path)
            sync_folder(path.parent)
    finally:
        new.unlink(missing_ok=True)
    return hashed.digest


class OciLayout:
    """An archive that is open for reading; usable in a ``with``, and from several threads.

    Attributes:
        names: By reference name, the descriptor of a manifest. One without a name has its digest.

    Raises:
        SourceError: There is no such file (AD201), or it is not an archive (AD888).
        StoreError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path: Path = path
        self._reading = threading.Lock()
        if not path.exists():
            raise SourceError(
                source_codes.SOURCE_MISSING.finding(f"{path} does not exist", Where(file=str(path)))
            )
        with guarded(path):
            self._file: IO[bytes] = path.open("rb")
        try:
            self._places: dict[str, tuple[int, int]] = self._members()
            self.names: Mapping[str, Descriptor] = self._listed()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> OciLayout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, reference: str | None) -> Descriptor:
        """The manifest with this reference name or digest; with ``None`` the only one. Raises
        :class:`SourceError`."""
        found = [
            descriptor
            for name, descriptor in self.names.items()
            if reference is None or reference in (name, descriptor.digest)
        ]
        if reference is None and len(found) != 1:
            self._refuse(f"it has {len(found)} artifacts, and none was named")
        if not found:
            self._refuse(f"it has no artifact {(reference or '')[:200]!r}")
        return found[0]

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """One of :attr:`names`, verified. Raises :class:`SourceError`, :class:`IntegrityError`."""
        try:
            return read_manifest(self.read(descriptor))
        except InvalidManifestError as error:
            self._refuse(f"the manifest {descriptor.digest}: {error}")

    def size(self, digest: str) -> int | None:
        """The bytes of a content, or ``None`` where the archive does not have it."""
        place = self._places.get(BLOBS + digest.removeprefix(PREFIX))
        return None if place is None else place[1]

    def read(self, descriptor: Descriptor) -> bytes:
        """See :class:`Blobs`."""
        if descriptor.size > MANIFEST_BYTES:
            self._refuse(f"{descriptor.digest} has more than {MANIFEST_BYTES} bytes")
        content = io.BytesIO()
        self._transfer(descriptor, content, None)
        return content.getvalue()

    def copy(
        self,
        descriptor: Descriptor,
        into: Path,
        on_bytes: OnBytes | None = None,
        guard: Callable[[Path], AbstractContextManager[None]] = guarded,
    ) -> None:
        """See :class:`Blobs`. ``guard`` makes errors of writing ours."""
        with removed_on_failure(into), guard(into), into.open("xb") as file:
            self._transfer(descriptor, file, on_bytes)

    def stream(self, descriptor: Descriptor, start: int, stop: int) -> Generator[bytes]:
        """The bytes ``start <= i < stop`` of a content, not verified."""
        at, size = self._place(descriptor)
        Checked(descriptor, hint=GET_AGAIN).announced(size)
        return self._chunks(at + start, stop - start)

    def verify(self, on_bytes: OnBytes | None = None) -> int:
        """Read every artifact's contents; their number.

        Raises:
            IntegrityError: One is not what its descriptor says.
            SourceError: One is missing, or a manifest is invalid.
        """
        done: set[str] = set()
        for descriptor in self.names.values():
            done.add(descriptor.digest)
            for one in self.manifest(descriptor).contents:
                if one.digest not in done:
                    self._transfer(one, None, on_bytes)
                    done.add(one.digest)
        return len(done)

    def _transfer(
        self, descriptor: Descriptor, into: IO[bytes] | None, on_bytes: OnBytes | None
    ) -> None:
        start, size = self._place(descriptor)
        check = Checked(descriptor, hint=GET_AGAIN)
        check.announced(size)
        for chunk in self._chunks(start, size):
            check.add(chunk)
            if into is not None:
                into.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        check.finish()

    def _place(self, descriptor: Descriptor) -> tuple[int, int]:
        place = self._places.get(BLOBS + descriptor.digest.removeprefix(PREFIX))
        if place is None:
            self._refuse(f"{descriptor.digest} is missing")
        return place

    def _chunks(self, start: int, size: int) -> Generator[bytes]:
        left = size
        while left:
            with guarded(self._path), self._reading:
                self._file.seek(start + size - left)
                chunk = self._file.read(min(left, CHUNK))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk

    def _members(self) -> dict[str, tuple[int, int]]:
        """By name, where each file of the layout starts in the archive, and its size."""
        places: dict[str, tuple[int, int]] = {}
        with guarded(self._path):
            total = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
        try:
            with (
                guarded(self._path),
                tarfile.open(
                    fileobj=cast(IO[bytes], _Forward(self._file, total)), mode="r:"
                ) as tar,
            ):
                for count, member in enumerate(tar, 1):
                    name = member.name.removeprefix("./")
                    ours = name in (LAYOUT, INDEX) or _BLOB.match(name)
                    if count > MEMBERS:
                        self._refuse(f"it has more than {MEMBERS} members")
                    if ours and (name in places or not member.isreg() or member.issparse()):
                        self._refuse(f"{name} is a duplicate, or not a plain file")
                    if ours:
                        if member.offset_data + member.size > total:
                            self._refuse(f"it ends within {name}")
                        places[name] = (member.offset_data, member.size)
        except AdapterdockError:
            raise
        except Exception as error:  # whatever the library makes of other bytes
            self._refuse(f"it is not a tar file: {str(error)[:200] or type(error).__name__}")
        return places

    def _listed(self) -> Mapping[str, Descriptor]:
        names: dict[str, Descriptor] = {}
        try:
            layout = parse_object(self._small(LAYOUT))
            if layout.get("imageLayoutVersion") != _VERSION["imageLayoutVersion"]:
                self._refuse(f"{LAYOUT} does not say version 1.0.0")
            for descriptor, notes in read_index(self._small(INDEX)):
                name = notes.get(REF_NAME, descriptor.digest)
                if name in names:
                    self._refuse(f"two artifacts are called {name[:200]!r}")
                if descriptor.media_type == MANIFEST_TYPE:
                    names[name] = descriptor
        except (InvalidEntryError, InvalidManifestError) as error:
            self._refuse(str(error))
        return names

    def _small(self, name: str) -> bytes:
        start, size = self._places.get(name, (0, -1))
        if size < 0:
            self._refuse(f"{name} is missing")
        if size > MANIFEST_BYTES:
            self._refuse(f"{name} has more than {MANIFEST_BYTES} bytes")
        return b"".join(self._chunks(start, size))

    def _refuse(self, why: str) -> NoReturn:
        raise SourceError(
            codes.OCI_ARCHIVE_INVALID.finding(f"Cannot read the OCI archive {self._path}: {why}")
        )


class _Hashing:
    """A file that is only written, and its digest."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes | None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._on_bytes = on_bytes

    @property
    def digest(self) -> str:
        return PREFIX + self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        if self._on_bytes is not None:
            self._on_bytes(len(data))


class _Forward:
    """A file in which ``tarfile`` reads headers: forward only, with a limit on what it reads. A
    header with a negative size would send it in circles, one with a large size fill the memory."""

    def __init__(self, file: IO[bytes], total: int) -> None:
        self._file = file
        self._total = total
        self._at = 0
        self._read = 0

    def read(self, size: int) -> bytes:
        self._read += size
        if not 0 <= size <= MIB or self._read > HEADERS:
            raise tarfile.ReadError("its headers are too large")
        data = self._file.read(size)
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, at: int) -> int:
        if not self._at - 1 <= at <= self._total:
            raise tarfile.ReadError("a member has an impossible size")
        self._at = self._file.seek(at)
        return self._at


def _write(
    out: _Hashing,
    listed: Iterable[tuple[Descriptor, Mapping[str, str]]],
    contents: Mapping[str, tuple[Descriptor, bytes | Path]],
) -> None:
    _member(out, LAYOUT, _described(canonical(_VERSION)))
    _member(out, INDEX, _described(make_index(listed)))
    for digest in sorted(contents):
        _member(out, BLOBS + digest.removeprefix(PREFIX), contents[digest])
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def _read(path: Path) -> Iterator[bytes]:
    """Pieces of a file. Raises :class:`StoreError`."""
    with guarded(path), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _described(raw: bytes) -> tuple[Descriptor, bytes]:
    return Descriptor("", sha256_bytes(raw), len(raw)), raw


def _member(out: _Hashing, name: str, content: tuple[Descriptor, bytes | Path]) -> None:
    """One file of the tar, without owner and time. Raises :class:`IntegrityError`."""
    descriptor, source = content
    info = tarfile.TarInfo(name)
    info.size = descriptor.size
    out.write(info.tobuf(tarfile.PAX_FORMAT))
    check = Checked(descriptor)
    for chunk in [source] if isinstance(source, bytes) else _read(source):
        check.add(chunk)
        out.write(chunk)
    check.finish()
    out.write(bytes(-descriptor.size % tarfile.BLOCKSIZE))
