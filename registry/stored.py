"""A locked folder out of the store, for when its source need not, or cannot, be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..manifests.codes.store import OBJECT_MISSING
from ..manifests.errors import OfflineError, SourceError, StoreError
from ..manifests.findings import Where
from ..manifests.source import Source
from .facts import FileFact
from .sources.folder import OnBytes
from .store import Store


def stored_folder(
    source: Source,
    facts: Iterable[FileFact],
    store: Store,
    *,
    revision: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> StoredFolder | None:
    """The folder that a lock describes, if the store has all of its files, else ``None``.

    ``facts`` and ``revision`` (a Hub commit) are the lock's. Files are verified like all that
    the store gives out. Needs no network and no driver for the source's scheme.
    """
    folder = StoredFolder(source, facts, store, revision=revision, where=where)
    return folder if folder.complete else None


class StoredFolder:
    """A :class:`~adapterdock.registry.sources.folder.Folder` over the store."""

    def __init__(
        self,
        source: Source,
        facts: Iterable[FileFact],
        store: Store,
        *,
        revision: str | None,
        where: Where,
    ) -> None:
        self._source: Source = source
        self._facts: Mapping[str, FileFact] = MappingProxyType({fact.path: fact for fact in facts})
        self._store: Store = store
        self._revision: str | None = revision
        self._where: Where = where

    @property
    def complete(self) -> bool:
        """Whether the store has every file now."""
        return all(self._find(fact) is not None for fact in self._facts.values())

    @property
    def source(self) -> Source:
        return self._source

    @property
    def pinned(self) -> Source:
        return self._source if self._revision is None else self._source.at(self._revision)

    @property
    def revision(self) -> str | None:
        return self._revision

    @property
    def bytes_read(self) -> int:
        """Nothing is transferred."""
        return 0

    def files(self) -> Mapping[str, FileFact]:
        return self._facts

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if start < 0 or (length is not None and length < 0):
            raise ValueError("start and length count from 0")
        try:
            with self._there(path).open("rb") as stream:
                stream.seek(start)
                return stream.read(-1 if length is None else length)
        except OSError as error:
            raise self._missing(path) from error

    def local(self, path: str) -> Path | None:
        fact = self._facts.get(path)
        return None if fact is None else self._find(fact)

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        return self._there(path)

    def _there(self, path: str) -> Path:
        found = self.local(path)
        if found is None:
            raise self._missing(path)
        return found

    def _find(self, fact: FileFact) -> Path | None:
        if fact.sha256 is None:
            return None
        try:
            return self._store.find(fact.sha256, fact.size if fact.size >= 0 else None)
        except StoreError as error:
            raise SourceError(*error.findings) from error

    def _missing(self, path: str) -> OfflineError:
        return OfflineError(
            OBJECT_MISSING.finding(f"{self._source}: {path!r} is not in the cache", self._where)
        )
