"""A folder on a host that only a manifest chose: it is read without the user's credentials."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from .failures import scrub, source_error
from .folder import Folder, OnBytes
from .ways import Way

_FOR_WANT_OF_CREDENTIALS = frozenset(
    code.id
    for code in (
        codes.NOT_AUTHENTICATED,
        codes.ACCESS_DENIED,
        codes.HUB_GATED,
        codes.HUB_REPOSITORY_NOT_FOUND,
    )
)


class WithheldFolder:
    """``inner``, which was opened without credentials because of ``ways``. Where the host then
    refuses, the error says so and what would let them be sent."""

    def __init__(self, inner: Folder, ways: Sequence[Way], where: Where) -> None:
        self._inner: Folder = inner
        self._ways: Sequence[Way] = ways
        self._where: Where = where

    @property
    def source(self) -> Source:
        return self._inner.source

    @property
    def pinned(self) -> Source:
        with self._told():
            return self._inner.pinned

    @property
    def revision(self) -> str | None:
        with self._told():
            return self._inner.revision

    @property
    def bytes_read(self) -> int:
        return self._inner.bytes_read

    def files(self) -> Mapping[str, FileFact]:
        with self._told():
            return self._inner.files()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with self._told():
            return self._inner.read(path, start, length)

    def local(self, path: str) -> Path | None:
        with self._told():
            return self._inner.local(path)

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        with self._told():
            return self._inner.download(path, into, on_bytes)

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except SourceError as error:
            if error.code not in _FOR_WANT_OF_CREDENTIALS:
                raise
            raise withheld(self.source, self._ways, self._where) from error


def withheld(source: Source, ways: Sequence[Way], where: Where) -> SourceError:
    """The error where a host that only the manifest chose wants credentials."""
    return source_error(
        codes.CREDENTIALS_WITHHELD,
        f"Your credentials were not used for {scrub(str(source))}: "
        f"only the manifest chose {', '.join(way.url or way.option for way in ways)}",
        where,
        found=", ".join(
            way.option if way.url is None else f"{way.option}: {way.url}" for way in ways
        ),
    )
