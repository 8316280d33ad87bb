"""A folder as a lock pins it. What the store has of it is read there; the source itself is opened
only for the other files, and only when one of them is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from ..store.store import Store
from .folder import Folder, OnBytes

OpenRest = Callable[[Mapping[str, FileFact]], Folder]


class StoredFolder:
    """``source`` at ``pins``; ``places`` are verified objects, ``rest`` opens the source for the
    other pins."""

    def __init__(
        self,
        source: Source,
        revision: str | None,
        pins: Mapping[str, FileFact],
        places: Mapping[str, Path],
        rest: OpenRest,
        where: Where,
    ) -> None:
        self.source: Source = source
        self.pinned: Source = source if revision is None else source.at(revision)
        self.revision: str | None = revision
        self._pins: Mapping[str, FileFact] = pins
        self._places: Mapping[str, Path] = places
        self._open: OpenRest = rest
        self._opened: Folder | None = None
        self._where: Where = where

    @classmethod
    def find(
        cls,
        source: Source,
        revision: str | None,
        pins: Mapping[str, FileFact],
        store: Store,
        rest: OpenRest,
        where: Where,
    ) -> StoredFolder | None:
        """The folder, or ``None`` if the store has no file of it, or if a file is not pinned by
        its content."""
        places: dict[str, Path] = {}
        for path, pin in pins.items():
            if pin.sha256 is None:
                return None
            place = store.find(pin.sha256, pin.size)
            if place is not None:
                places[path] = place
        return cls(source, revision, pins, places, rest, where) if places else None

    @property
    def bytes_read(self) -> int:
        return 0 if self._opened is None else self._opened.bytes_read

    def files(self) -> Mapping[str, FileFact]:
        return self._pins

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        place = self._places.get(path)
        if place is None:
            return self._rest().read(path, start, length)
        try:
            with place.open("rb") as stream:
                stream.seek(start)
                return stream.read(-1 if length is None else length)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def local(self, path: str) -> Path | None:
        # A file in the store is found there by its digest.
        return None if path in self._places else self._rest().local(path)

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        place = self._places.get(path)
        if place is None:
            return self._rest().download(path, into, on_bytes)
        try:
            shutil.copyfile(place, into)
        except OSError as error:
            raise self._unreadable(path, error) from error
        if on_bytes is not None:
            on_bytes(self._pins[path].size)
        return into

    def _rest(self) -> Folder:
        if self._opened is None:
            rest = {path: pin for path, pin in self._pins.items() if path not in self._places}
            self._opened = self._open(rest)
        return self._opened

    def _unreadable(self, path: str, error: OSError) -> SourceError:
        return SourceError(
            codes.UNREADABLE.finding(
                f"Cannot read {path} of {self.source} in the cache",
                self._where,
                found=error.strerror,
            )
        )
