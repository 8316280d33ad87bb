"""A storage in memory, for tests that ask often, and one whose listing is late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random


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

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path, 1 << 40)

    def find(self, folder: str) -> Mapping[str, int]:
        start = f"{folder}/" if folder else ""
        return {p: len(raw) for p, raw in sorted(self.files.items()) if p.startswith(start)}

    def times(self, folder: str) -> Mapping[str, float]:
        return dict.fromkeys(self.find(folder), 0.0)

    def create(self, path: str, content: bytes | Path) -> None:
        raw = content.read_bytes() if isinstance(content, Path) else content
        if self.files.setdefault(path, raw) is not raw:
            raise FileExistsError(path)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)


class LateListing(MemoryStorage):
    """What is created or removed is listed so only after some more calls, a random number of at
    most ``lag`` for each file. Reading by name is never late.

    No storage that a registry can be published to is like that any more: S3 was until 2020.
    """

    def __init__(self, lag: int, seed: int = 0) -> None:
        super().__init__()
        self._random = Random(seed)
        self._lag = lag
        self._calls = 0
        self._from: dict[str, int] = {}
        self._until: dict[str, tuple[int, int]] = {}

    def settle(self) -> None:
        """Wait until the listing is right."""
        self._calls += self._lag + 1

    def read(self, path: str, limit: int) -> bytes:
        self._calls += 1
        return super().read(path, limit)

    def find(self, folder: str) -> Mapping[str, int]:
        self._calls += 1
        start = f"{folder}/" if folder else ""
        gone = {p: size for p, (until, size) in self._until.items() if self._calls < until}
        there = {p: size for p, size in super().find(folder).items() if self._is_listed(p)}
        return {**there, **{p: size for p, size in gone.items() if p.startswith(start)}}

    def _is_listed(self, path: str) -> bool:
        return self._from.get(path, 0) <= self._calls

    def create(self, path: str, content: bytes | Path) -> None:
        super().create(path, content)
        self._from[path] = self._calls + self._random.randint(0, self._lag)

    def remove(self, path: str) -> None:
        if path in self.files:
            until = self._calls + self._random.randint(0, self._lag)
            self._until[path] = (until, len(self.files[path]))
        super().remove(path)
