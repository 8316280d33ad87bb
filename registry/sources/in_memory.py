"""A folder that the caller hands over in memory, in place of what a source would hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.digests import sha256_bytes
from ..files.facts import FileFact
from .folder import OnBytes


class InMemoryFolder:
    """``files`` by path, under the name of ``source``. Its pins are the digests of the bytes."""

    def __init__(
        self,
        source: Source,
        files: Mapping[str, bytes],
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        self.source: Source = source
        self.pinned: Source = source
        self.revision: str | None = None
        self.bytes_read: int = 0
        self._where: Where = where
        self._content: dict[str, bytes] = dict(files)

    def files(self) -> Mapping[str, FileFact]:
        return {
            path: FileFact(path, len(data), sha256_bytes(data))
            for path, data in self._content.items()
        }

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        data = self._content.get(path)
        if data is None:
            raise SourceError(
                codes.FILE_MISSING.finding(f"{path} was not handed over", self._where)
            )
        part = data[start:] if length is None else data[start : start + length]
        self.bytes_read += len(part)
        return part

    def local(self, path: str) -> Path | None:
        return None

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        data = self.read(path)
        into.write_bytes(data)
        if on_bytes is not None:
            on_bytes(len(data))
        return into
