"""A registry in a bucket, or on anything else that fsspec opens.

S3 (s3fs), Azure (adlfs) and Google Cloud Storage (gcsfs) create a file only where there is none of
its name, and say so in different ways. On any other filesystem a registry can be read.
"""

from __future__ import annotations

import errno
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings.errors import AdapterdockError, SourceError
from ..files.digests import sha256_file
from ..files.disk import guarded
from ..sources.failures import explain, scrub, service_code_of, source_error, status_of
from ..sources.filesystems import open_filesystem
from ..sources.opened import is_hidden
from ..sources.request import SourceRequest
from ..sources.ways import AZURE, GOOGLE, S3, reached_at
from .layout import PROBE
from .s3_upload import PART, ChangedError, upload
from .storage import file_changed

_T = TypeVar("_T")
_PIECE = 16 << 20
"""Bytes of one request for a part of a large file."""
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""How filesystems call the time of a file."""
_CREATING = S3 | AZURE | GOOGLE
_BUSY_TRIES = 12
_TRIES = 3
_EXISTS = frozenset({"PreconditionFailed", "BlobAlreadyExists", "UnauthorizedBlobOverwrite"})
_BUSY = frozenset(
    {
        *("ConditionalRequestConflict", "OperationAborted"),
        "NoSuchUpload",  # a lost answer to the last request of an upload, repeated
        "InvalidBlockList",  # Azure, when another writer's blocks won
    }
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_WORTH_RETRYING = frozenset(
    code.id
    for code in (
        *(source_codes.RATE_LIMITED, source_codes.SERVER_ERROR),
        *(source_codes.TIMED_OUT, source_codes.TRUNCATED),
    )
)

_proven: set[tuple[str, str | None]] = set()
"""The storages (and where they are reached) that were proven in this process."""
_proving = threading.Lock()


class RemoteStorage:
    """See :class:`Storage`. It has a filesystem of its own, without a cache of listings: fsspec
    keeps both for a process, and then what others write stays invisible.

    Of a storage's first write in a process, the file ``probe`` is created twice, unless it exists.
    A storage that accepts both is refused.
    """

    def __init__(
        self, request: SourceRequest, *, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._request = request
        self._where = request.where
        self._scheme = request.source.scheme
        self._url = scrub(str(request.source))
        self._wait = wait
        options = dict(request.options)
        if self._scheme in _CREATING:
            options["use_listings_cache"] = False
        self._fs, self._root = open_filesystem(request.source, options, request.where)

    @property
    def url(self) -> str:
        return self._url

    @property
    def creates(self) -> bool:
        return self._scheme in _CREATING

    @property
    def lists(self) -> bool:
        return True

    def read(self, path: str, limit: int) -> bytes:
        return self._part(path, 0, limit)

    def chunks(self, path: str) -> Iterator[bytes]:
        start = 0
        while chunk := self._part(path, start, start + _PIECE):
            yield chunk
            if len(chunk) < _PIECE:
                return
            start += len(chunk)

    def _part(self, path: str, start: int, end: int) -> bytes:
        # otherwise s3fs sends HEAD before GET, and adlfs several GETs
        once = {"max_concurrency": 1} if self._scheme in S3 | AZURE else {}

        def fetch() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._key(path), start=start, end=end, **once))
            except Exception as error:
                if status_of(error) == 416:
                    return b""  # the range of an empty file, or after the end
                if _is_missing(error):
                    return None
                raise

        found = self._patiently(fetch, path, "read")
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", f"{self._url}/{path}")
        return found[: end - start]

    def find(self, folder: str) -> Mapping[str, int]:
        return {path: int(info.get("size") or 0) for path, info in self._rows(folder).items()}

    def times(self, folder: str) -> Mapping[str, float]:
        return {path: _time_of(info) for path, info in self._rows(folder).items()}

    def _rows(self, folder: str) -> Mapping[str, Mapping[str, Any]]:
        start = self._key(f"{folder}/") if folder else f"{self._root}/"

        def ask() -> Any:
            self._fs.invalidate_cache()
            try:
                if self._scheme in S3 and folder:  # one LIST, also where there is nothing
                    return self._fs.find(self._root, prefix=f"{folder}/", detail=True)
                strict = {} if self._scheme in _CREATING else {"on_error": "raise"}
                return self._fs.find(start.rstrip("/"), detail=True, **strict)
            except Exception as error:
                if _is_missing(error):
                    return {}
                raise

        rows = self._patiently(ask, folder, "list")
        if not isinstance(rows, Mapping):  # adlfs, where the folder is a file
            return {}
        found: dict[str, Mapping[str, Any]] = {}
        for name, info in cast("Mapping[str, Mapping[str, Any]]", rows).items():
            path = name[len(self._root) + 1 :]
            if (
                info.get("type") == "file"
                and name.startswith(start)
                and not (path.endswith("/") or is_hidden(path))
            ):
                found[path] = info
        return found

    def create(self, path: str, content: bytes | Path) -> None:
        self._need_writing(path)
        if isinstance(content, Path):
            with guarded(content), content.open("rb"):
                pass
        self._prove()
        self._create(path, content)

    def create_verified(self, path: str, content: Path, digest: str) -> None:
        """See :class:`VerifyingStorage`."""
        self._need_writing(path)
        with guarded(content):
            if not self._in_parts(content) and sha256_file(content) != digest:
                raise file_changed(content)
        self._prove()
        self._create(path, content, digest)

    def remove(self, path: str) -> None:
        self._need_writing(path)

        def drop() -> None:
            try:
                self._fs.rm_file(self._key(path))
            except Exception as error:
                if not _is_missing(error):
                    raise

        self._patiently(drop, path, "remove")

    # ------------------------------------------------------------------------------------------

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _need_writing(self, path: str) -> None:
        if not self.creates:
            raise source_error(
                codes.STORAGE_READ_ONLY,
                f"Cannot write {self._url}/{path}: "
                f"a registry on {self._scheme}:// can only be read",
                self._where,
                expected="a local folder, s3://, az:// or gs://",
            )

    def _prove(self) -> None:
        """Raise ``SourceError`` where a file can be created twice. Once for each process."""
        mark = (self._url, reached_at(self._request.source, self._request.options))
        with _proving:
            if mark in _proven:
                return
            for _ in range(2):
                try:
                    self._create(PROBE, os.urandom(16))
                except FileExistsError:
                    _proven.add(mark)
                    return
        with suppress(AdapterdockError):
            self.remove(PROBE)
        raise source_error(
            codes.CREATES_TWICE,
            f"{self._url} let the same file be created twice",
            self._where,
            expected="the second request to be refused",
        )

    def _in_parts(self, content: Path) -> bool:
        """Whether a file is sent in parts by ourselves."""
        return self._scheme in S3 and content.stat().st_size >= 2 * PART

    def _send(self, path: str, content: bytes | Path, digest: str | None) -> None:
        if not isinstance(content, Path):
            self._fs.pipe_file(self._key(path), content, mode="create")
        elif self._in_parts(content):
            bucket, key, _ = self._fs.split_path(self._key(path))
            size = content.stat().st_size
            upload(self._fs, bucket, key, content, size, digest)
        else:
            self._fs.put_file(str(content), self._key(path), mode="create")

    def _create(self, path: str, content: bytes | Path, digest: str | None = None) -> None:
        for attempt in range(_BUSY_TRIES):
            try:
                self._send(path, content, digest)
                return
            except ChangedError as error:
                assert isinstance(content, Path)
                raise file_changed(content) from error
            except Exception as error:
                meaning = meaning_of(error)
                if meaning == "exists":
                    raise FileExistsError(
                        errno.EEXIST, "File exists", f"{self._url}/{path}"
                    ) from error
                failure = self._explain(error, path, "write")
                tries = _BUSY_TRIES if meaning == "busy" else _TRIES
                if meaning == "failed" and failure.code not in _WORTH_RETRYING:
                    raise failure from error
                if attempt + 1 >= tries:
                    raise (
                        failure if meaning == "failed" else self._contradicts(path, error)
                    ) from error
            self._pause(attempt)

    def _contradicts(self, path: str, error: Exception) -> SourceError:
        return source_error(
            codes.STORAGE_CONTRADICTS,
            f"{self._url}/{path} could not be created in {_BUSY_TRIES} tries: "
            "each time another write was in progress",
            self._where,
            found=service_code_of(error) or status_of(error) or type(error).__name__,
        )

    def _patiently(self, call: Callable[[], _T], path: str, doing: str) -> _T:
        """``call()``, repeated after a failure of the server; errors become ours."""
        for attempt in range(_TRIES):
            try:
                return call()
            except Exception as error:
                failure = self._explain(error, path, doing)
                if failure.code not in _WORTH_RETRYING or attempt + 1 == _TRIES:
                    raise failure from error
            self._pause(attempt)
        raise AssertionError("the last try returns or raises")

    def _pause(self, attempt: int) -> None:
        """Longer each time, and at random, so that writers that collided do not collide again."""
        self._wait(random.uniform(0.02, min(5.0, 0.1 * 2**attempt)))

    def _explain(self, error: Exception, path: str, doing: str) -> SourceError:
        return explain(error, f"{self._url}/{path}".rstrip("/"), self._where, doing=doing)


def meaning_of(error: BaseException) -> Literal["exists", "busy", "failed"]:
    """What the failure of a create-only write means: the file exists, another write of it is in
    progress (AWS answers 409), or the write failed."""
    service, status = service_code_of(error), status_of(error)
    if service in _EXISTS or status == 412:
        return "exists"
    if service in _BUSY or status == 409:
        return "busy"
    if isinstance(error, FileExistsError):
        return "exists"
    return "failed"


def _is_missing(error: BaseException) -> bool:
    """Whether a file is missing, and not its bucket."""
    return isinstance(error, FileNotFoundError) and service_code_of(error) not in _NO_BUCKET


def _time_of(info: Mapping[str, Any]) -> float:
    """Seconds by the storage's clock; infinite, as of a file from the future, where it says
    nothing."""
    found = next((info[key] for key in _TIMES if info.get(key) is not None), None)
    if isinstance(found, str):
        found = datetime.fromisoformat(found.replace("Z", "+00:00"))
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else math.inf
