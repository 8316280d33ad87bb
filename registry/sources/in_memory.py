"""A folder that the caller passes in memory, in place of the folder that a source names."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import ClassVar

from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.digests import sha256_bytes
from ..files.facts import FileFact
from .opened import OpenedFolder
from .request import SourceRequest


class InMemoryFolder(OpenedFolder):
    """``files`` by path, under the name of ``source``. Its pins are the digests of the bytes."""

    _waits: ClassVar[bool] = False

    def __init__(
        self,
        source: Source,
        files: Mapping[str, bytes],
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(SourceRequest(source, where=where))
        self._content: Mapping[str, bytes] = dict(files)

    def _list(self) -> Iterator[FileFact]:
        for path, data in self._content.items():
            yield FileFact(path, len(data), sha256_bytes(data))

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        self._received(stop - start)
        yield self._content[fact.path][start:stop]
