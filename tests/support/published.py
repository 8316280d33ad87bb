"""Registries and entries for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.publish import Published, publish_entry
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.records.entry import Entry
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.storages.storage import Storage


class Counted:
    """A storage that notes its calls, and can break off before one."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.calls: list[tuple[str, str]] = []
        self.break_off: int | None = None

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def creates(self) -> bool:
        return self.inner.creates

    @property
    def lists(self) -> bool:
        return self.inner.lists

    def _note(self, what: str, path: str) -> None:
        if self.break_off is not None and len(self.calls) >= self.break_off:
            raise KeyboardInterrupt
        self.calls.append((what, path))

    def read(self, path: str, limit: int) -> bytes:
        self._note("read", path)
        return self.inner.read(path, limit)

    def find(self, folder: str) -> Any:
        self._note("find", folder)
        return self.inner.find(folder)

    def chunks(self, path: str) -> Iterator[bytes]:
        self._note("chunks", path)
        return self.inner.chunks(path)

    def times(self, folder: str) -> Mapping[str, float]:
        self._note("times", folder)
        return self.inner.times(folder)

    def create(self, path: str, content: bytes | Path) -> None:
        self._note("create", path)
        self.inner.create(path, content)

    def remove(self, path: str) -> None:
        self._note("remove", path)
        self.inner.remove(path)


def registry(folder: Path, title: str | None = None) -> Catalogue:
    init_registry(LocalStorage(folder), title, local=True)
    return open_catalogue(LocalStorage(folder))


def contents(folder: Path, *texts: str) -> dict[str, Path]:
    """Files by digest."""
    found: dict[str, Path] = {}
    folder.mkdir(exist_ok=True)
    for text in texts:
        path = folder / text
        path.write_text(text)
        found[sha256_bytes(text.encode())] = path
    return found


def entry(version: str = "1.0.0", files: Any = ("sha256:" + "0" * 64,), **fields: Any) -> Entry:
    sizes = {d: path.stat().st_size for d, path in files.items()} if isinstance(files, dict) else {}
    rows = [
        {"path": f"file{n}", "size": sizes.get(digest, 5), "sha256": digest, "role": "weights"}
        for n, digest in enumerate(files)
    ]
    data = {
        "format": 1,
        "name": "refunds",
        "version": version,
        "created": "2026-11-30T06:00:00Z",
        "digest": "sha256:" + "1" * 64,
        "folder": "sha256:" + "2" * 64,
        "files": rows,
        "method": {
            "peft_type": "LORA",
            "rank": 8,
            "lowest_rank": 8,
            "dtype": "F32",
            "parameters": 100,
        },
        "base": {"source": "hf://org/base"},
    }
    return Entry.model_validate({**data, **fields}, strict=False)


def publish(catalogue: Catalogue, folder: Path, version: str, **fields: Any) -> Published:
    files = contents(folder, f"weights of {version}")
    return publish_entry(catalogue, entry(version, files, **fields), files)
