"""A folder that files are copied to, each complete or not at all: on a disk, or what fsspec opens.

Unlike a registry, it needs no storage that creates a file exclusively: files are replaced.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ...manifests.findings import sources as codes
from ...manifests.findings import store as store_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, IntegrityError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.owner import left_beside, made_beside
from ..files.digests import CHUNK, PREFIX, sha256_file
from ..files.disk import sync_file, sync_folder, writing
from ..sources.failures import explain, scrub, source_error
from ..sources.filesystems import open_filesystem
from ..sources.open import allowed_request, is_offline
from ..sources.request import SourceRequest
from ..sources.ways import AZURE, GOOGLE, HTTP, S3

CANNOT_WRITE = "Cannot write the mirror"
_AT_ONCE = S3 | AZURE | GOOGLE
"""Schemes where a file appears when it is complete."""
_COPYING = "copying"
"""In the name of a file that is being written."""
_TRIES = 3
_WORTH_RETRYING = frozenset(
    code.id for code in (codes.RATE_LIMITED, codes.SERVER_ERROR, codes.TIMED_OUT, codes.TRUNCATED)
)

OnBytes = Callable[[int], None]


class CopyTarget(Protocol):
    """Usable from several threads; paths are relative, with ``/``."""

    @property
    def url(self) -> str:
        """The folder as a source, without secrets."""
        ...

    def has(self, path: str, size: int, sha256: str) -> bool:
        """Whether the file is there: on a disk its bytes are read, elsewhere its size counts."""
        ...

    def put(self, path: str, content: Path, sha256: str, on_bytes: OnBytes | None) -> None:
        """Write the file with the bytes of a local one, which have this digest."""
        ...


def open_target(text: str, directory: Path, *, offline: bool = False) -> CopyTarget:
    """The folder that ``text`` names; a relative one counts from ``directory``. With ``offline``
    only one on this machine opens.

    Raises:
        UsageError: It cannot be written.
        SourceError: Its filesystem cannot be opened.
    """
    where = Where(file=scrub(text))
    try:
        source = Source.parse(text)
        if source.is_local:
            return LocalTarget(source.local_path(directory), str(source))
    except SourceSyntaxError as error:
        raise _invalid(where, text, str(error)) from error
    if source.is_hub or source.is_registry or source.is_oci or source.is_archive:
        raise _invalid(where, text, f"files cannot be written to {source.scheme}")
    if source.scheme in HTTP:
        raise _invalid(where, text, "a web server can only be read")
    request = SourceRequest(source, directory, {}, offline or is_offline(), where=where)
    return RemoteTarget(allowed_request(request, None))


def _invalid(where: Where, text: str, reason: str) -> UsageError:
    return UsageError(
        usage_codes.UNWRITABLE.finding(
            f"{CANNOT_WRITE}: {reason}",
            where,
            found=scrub(text),
            expected="./folder, s3://bucket/folder, or another folder that fsspec writes",
            hint="Name a folder that can be written.",
        )
    )


class LocalTarget:
    """See :class:`CopyTarget`. A file is written beside its place, compared, and renamed."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.url: str = url

    def has(self, path: str, size: int, sha256: str) -> bool:
        place = self._folder / path
        with writing(place, usage_codes.UNWRITABLE, CANNOT_WRITE):
            try:
                same = place.stat().st_size == size
                return same and sha256_file(place) == sha256
            except FileNotFoundError:
                return False

    def put(self, path: str, content: Path, sha256: str, on_bytes: OnBytes | None) -> None:
        place = self._folder / path
        new = made_beside(place, _COPYING)
        with writing(place, usage_codes.UNWRITABLE, CANNOT_WRITE):
            place.parent.mkdir(parents=True, exist_ok=True)
            for left in left_beside(place, _COPYING):
                left.unlink(missing_ok=True)
            try:
                _copy(content, new, sha256, on_bytes)
                sync_file(new)
                new.replace(place)
                sync_folder(place.parent)
            finally:
                new.unlink(missing_ok=True)


def _copy(content: Path, new: Path, sha256: str, on_bytes: OnBytes | None) -> None:
    hasher = hashlib.sha256()
    with content.open("rb", buffering=0) as source, new.open("xb", buffering=0) as target:
        while chunk := source.read(CHUNK):
            hasher.update(chunk)
            target.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    _require_same(content, f"{PREFIX}{hasher.hexdigest()}", sha256)


def _require_same(content: Path, found: str, sha256: str) -> None:
    if found != sha256:
        raise IntegrityError(
            store_codes.LOCAL_FILE_CHANGED.finding(
                "The file was changed while it was copied",
                Where(file=str(content)),
                found=found,
                expected=sha256,
            )
        )


class RemoteTarget:
    """See :class:`CopyTarget`. Where a filesystem shows a file while it is written, it is written
    under a hidden name, and then moved."""

    def __init__(self, request: SourceRequest) -> None:
        self._where = request.where
        self._scheme = request.source.scheme
        self.url: str = scrub(str(request.source))
        self._fs, self._root = open_filesystem(request.source, request.options, request.where)

    def has(self, path: str, size: int, sha256: str) -> bool:
        return self._size(path) == size

    def put(self, path: str, content: Path, sha256: str, on_bytes: OnBytes | None) -> None:
        _require_same(content, sha256_file(content), sha256)
        size = content.stat().st_size

        def send() -> None:
            key = self._key(path)
            if self._scheme in _AT_ONCE:
                self._fs.put_file(str(content), key)
                return
            folder, name = posixpath.split(key)
            self._fs.makedirs(folder, exist_ok=True)
            new = f"{folder}/.{name[:200]}.{os.urandom(4).hex()}.tmp"
            try:
                self._fs.put_file(str(content), new)
                self._fs.mv(new, key)
            finally:
                if self._fs.exists(new):
                    self._fs.rm_file(new)

        self._patiently(send, path)
        arrived = self._size(path)
        if arrived != size:
            raise source_error(
                codes.TRUNCATED,
                f"{self.url}/{path} was not written completely",
                self._where,
                found=f"{arrived} bytes",
                expected=f"{size} bytes",
            )
        if on_bytes is not None:
            on_bytes(size)

    def _size(self, path: str) -> int | None:
        def ask() -> int | None:
            self._fs.invalidate_cache()
            try:
                found: Any = self._fs.info(self._key(path))
            except FileNotFoundError:
                return None
            return int(found.get("size") or 0) if found.get("type") == "file" else None

        return self._patiently(ask, path)

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _patiently(self, call: Callable[[], Any], path: str) -> Any:
        for attempt in range(_TRIES):
            try:
                return call()
            except AdapterdockError:
                raise
            except Exception as error:
                failure = explain(
                    error, f"{self.url}/{path}", self._where, doing="write", scheme=self._scheme
                )
                if failure.code not in _WORTH_RETRYING or attempt + 1 == _TRIES:
                    raise failure from error
        raise AssertionError("the last try returns or raises")
