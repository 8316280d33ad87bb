"""A folder whose locked files are all in the store already: it is read there, and no network is
touched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...manifests.codes import sources as codes
from ...manifests.errors import SourceError
from ...manifests.findings import Where
from ...manifests.source import Source
from ..facts import FileFact
from .folder import OnBytes

if TYPE_CHECKING:
    from ..store import Store


class StoredFolder:
    """``source`` as a lock pins it, read from ``places``: each file's verified object."""

    def __init__(
        self,
        source: Source,
        revision: str | None,
        pins: Mapping[str, FileFact],
        places: Mapping[str, Path],
        where: Where,
    ) -> None:
        self.source: Source = source
        self.revision: str | None = revision
        self.bytes_read: int = 0
        self._pins: Mapping[str, FileFact] = pins
        self._places: Mapping[str, Path] = places
        self._where: Where = where

    @classmethod
    def find(
        cls,
        source: Source,
        revision: str | None,
        pins: Mapping[str, FileFact],
        store: Store,
        where: Where,
    ) -> StoredFolder | None:
        """The folder, or ``None`` where a file is not pinned by content or not in the store."""
        places: dict[str, Path] = {}
        for path, pin in pins.items():
            place = None if pin.sha256 is None else store.find(pin.sha256, pin.size)
            if place is None:
                return None
            places[path] = place
        return cls(source, revision, pins, places, where)

    @property
    def pinned(self) -> Source:
        return self.source if self.revision is None else self.source.at(self.revision)

    def files(self) -> Mapping[str, FileFact]:
        return self._pins

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        place = self._place(path)
        try:
            with place.open("rb") as stream:
                stream.seek(start)
                return stream.read(-1 if length is None else length)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def local(self, path: str) -> Path | None:
        self._place(path)
        return None  # the store finds it by its digest, and verifies it

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        place = self._place(path)
        try:
            shutil.copyfile(place, into)
        except OSError as error:
            raise self._unreadable(path, error) from error
        if on_bytes is not None:
            on_bytes(self._pins[path].size)
        return into

    def _place(self, path: str) -> Path:
        place = self._places.get(path)
        if place is None:
            raise SourceError(
                codes.FILE_MISSING.finding(f"{self.source}: {path} does not exist", self._where)
            )
        return place

    def _unreadable(self, path: str, error: OSError) -> SourceError:
        return SourceError(
            codes.UNREADABLE.finding(
                f"{self.source}: {path} cannot be read in the cache",
                self._where,
                found=error.strerror,
            )
        )
