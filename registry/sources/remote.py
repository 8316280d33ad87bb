"""A folder on anything that fsspec opens: gs, az, memory, and each kind without its own file."""

from __future__ import annotations

import hashlib
import posixpath
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, cast

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ..files.facts import FileFact
from .filesystems import open_filesystem
from .opened import OpenedFolder
from .pace import Limits
from .request import SourceRequest

_CHUNK = 8 << 20
_FIRST = 64 << 10
_SOON, _LATE = 1.0, 5.0
_VERSIONS = (
    ("generation", "generation"),
    ("etag", "etag"),
    ("ETag", "etag"),
    ("version_id", "versionid"),
    ("versionId", "versionid"),
    ("md5Hash", "md5"),
    ("checksum", "checksum"),
)


class RemoteFolder(OpenedFolder):
    """A folder of an fsspec filesystem.

    ``FileFact.version`` is the first value of the filesystem that changes with the content
    (generation, ETag, checksum), else fsspec's ``ukey``, after the name of its kind
    (``etag:...``). It is read again after each read of the file, to notice a replaced file.
    """

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        self._fs, self._root = open_filesystem(request.source, request.options, request.where)

    def _await(self, call: Callable[..., Any], *args: Any) -> Any:
        """The result of an async function, run where the filesystem's own ones run."""
        from fsspec.asyn import sync

        return cast("Any", sync(self._fs.loop, call, *args))

    def _chunks(self, read: Callable[[int], Any]) -> Iterator[bytes]:
        """A body, of which the async function ``read`` returns at most so many bytes."""
        while chunk := self._await(read, 1 << 16):
            yield chunk

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _list(self) -> Iterator[FileFact]:
        self._fs.invalidate_cache()
        for folder, _, files in self._fs.walk(self._root, detail=True, on_error="raise"):
            inner = folder[len(self._root) :].strip("/")
            for name, info in files.items():
                if not name:
                    raise self._not_a_folder()
                yield self._fact_of(posixpath.join(inner, name), info)

    def _look(self, pin: FileFact) -> FileFact | None:
        self._fs.invalidate_cache()
        try:
            return self._fact_of(pin.path, self._fs.info(self._key(pin.path)))
        except FileNotFoundError:
            return None

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        # A driver reports nothing before a piece is complete, so pieces are smaller on a slow
        # connection: a slow but steady one must not look stalled.
        piece = min(_FIRST, int(Limits.from_environment(self._where).least / 2) or _FIRST)
        while start < stop:
            began = time.monotonic()
            chunk = self._fs.cat_file(
                self._key(fact.path), start=start, end=min(stop, start + piece)
            )
            took = time.monotonic() - began
            if took < _SOON:
                piece = min(2 * piece, _CHUNK)
            elif took > _LATE:
                piece = max(piece // 4, 1)
            self._received(len(chunk))
            if not chunk:
                break
            start += len(chunk)
            yield bytes(chunk)
        if fact.version is None:
            return  # of a content, which does not change
        now = self._patiently(lambda: self._look(fact), fact.path)
        if now is None or (now.size, now.version) != (fact.size, fact.version):
            raise self._changed(
                fact.path, now.version if now is not None else "deleted", fact.version
            )

    def _fact_of(self, path: str, info: Mapping[str, Any]) -> FileFact:
        size = info.get("size")
        if not isinstance(size, int):
            raise self._error(codes.BAD_ANSWER, f"Unknown size of {self._shown(path)}")
        return FileFact(path, size, version=self._version(path, info))

    def _version(self, path: str, info: Mapping[str, Any]) -> str:
        for key, kind in _VERSIONS:
            if info.get(key):
                return f"{kind}:{info[key]}"
        return f"ukey:{_ukey(self._fs, self._key(path))}"

    def _explain(self, error: BaseException, path: str | None = None) -> SourceError:
        failure = super()._explain(error, path)
        if path is None and failure.code == codes.FILE_MISSING.id:
            return self._missing()
        return failure

    def _missing(self) -> SourceError:
        return self._error(codes.SOURCE_MISSING, f"{self._shown()}: the folder does not exist")

    def _not_a_folder(self) -> SourceError:
        above = self._shown().rpartition("/")[0]
        return self._error(
            codes.SOURCE_NOT_A_FOLDER,
            f"{self._shown()} is a file",
            expected=f"its folder: {above}",
        )


def _ukey(fs: Any, key: str) -> str:
    """fsspec's key of a file's state. Its default is a digest of all of ``info``; here without
    the time of the last access, because reading changes it."""
    from fsspec import AbstractFileSystem

    if type(fs).ukey is not AbstractFileSystem.ukey:
        return str(fs.ukey(key))
    state = sorted((k, str(v)) for k, v in fs.info(key).items() if k not in ("time", "atime"))
    return hashlib.sha256(str(state).encode()).hexdigest()


open_folder = RemoteFolder
