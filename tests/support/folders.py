"""Small folders made in memory, sound and faulty, for tests of what is built on `Folder`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.files.facts import FileFact


def fact(path: str, content: bytes, **changes: object) -> FileFact:
    """The true fact of a file, or one with ``changes``."""
    values = {"path": path, "size": len(content), "sha256": sha256_bytes(content)} | changes
    return FileFact(**values)  # type: ignore[arg-type]


@dataclass
class MemoryFolder:
    """A remote folder whose files are ``contents``. ``listed`` is what it claims to have.

    ``during(path)`` runs in the middle of each download, after half of the bytes.
    """

    contents: Mapping[str, bytes]
    listed: Mapping[str, FileFact] | None = None
    address: str | Source = "s3://bucket/folder"
    during: Callable[[str], None] | None = None
    downloads: list[str] = field(default_factory=list)
    listings: int = 0
    bytes_read: int = 0
    revision: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def source(self) -> Source:
        return self.address if isinstance(self.address, Source) else Source.parse(self.address)

    @property
    def pinned(self) -> Source:
        return self.source

    def files(self) -> Mapping[str, FileFact]:
        self.listings += 1
        if self.listed is not None:
            return self.listed
        return {name: FileFact(name, len(data)) for name, data in self.contents.items()}

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return self.contents[path][start : None if length is None else start + length]

    def local(self, path: str) -> Path | None:
        return None

    def download(
        self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
    ) -> Path:
        with self.lock:
            self.downloads.append(path)
        data = self.contents[path]
        half = len(data) // 2
        with into.open("wb", buffering=0) as stream:
            for part in (data[:half], data[half:]):
                stream.write(part)
                self.bytes_read += len(part)
                if on_bytes is not None:
                    on_bytes(len(part))
                if self.during is not None and part is not data[half:]:
                    self.during(path)
        return into


@dataclass
class PlaceFolder(MemoryFolder):
    """A folder whose files have a place of their own on this machine: ``root``.

    What is not there yet is written there by ``download``, as the Hub's client does.
    """

    root: Path = Path()

    def local(self, path: str) -> Path | None:
        place = self.root / path
        return place if place.exists() else None

    def download(
        self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
    ) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return super().download(path, place, on_bytes)
