"""A storage in memory, for tests that ask often, and one that tells the truth late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class MemoryStorage:
    """As a local folder. ``files`` are its contents by path."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.url = f"memory-{id(self)}"
        self.creates = True
        self.lists = True

    def read(self, path: str, limit: int) -> bytes:
        try:
            return self.files[path][:limit]
        except KeyError:
            raise FileNotFoundError(path) from None

    def find(self, folder: str) -> Mapping[str, int]:
        start = f"{folder}/" if folder else ""
        return {p: len(raw) for p, raw in sorted(self.files.items()) if p.startswith(start)}

    def create(self, path: str, content: bytes | Path) -> None:
        raw = content.read_bytes() if isinstance(content, Path) else content
        if self.files.setdefault(path, raw) is not raw:
            raise FileExistsError(path)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)
