"""The Hub's cache on disk, as its client lays it out and shares it with other programs:
``models--org--name/{blobs/<etag>, refs/<branch>, snapshots/<commit>/<path>}`` and ``.locks``
(huggingface_hub, guide "Understand caching"). Each file appears there by one rename, so that a
program that reads at the same time finds the old file or the new one, never a part."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.digests import PREFIX, Hasher, git_blob_sha1, path_problem, sha256_file
from ..files.facts import FileFact

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LOCK_TRY = 0.2


@dataclass(frozen=True)
class Content:
    """What a file must be: its SHA-256, else its git blob id, else its size."""

    size: int
    sha256: str | None
    blob: str | None

    @classmethod
    def of(cls, fact: FileFact) -> Content:
        version = fact.version or ""
        sha256 = fact.sha256.removeprefix(PREFIX) if fact.sha256 else None
        if sha256 is None and _SHA256.match(version):
            sha256 = version
        return cls(fact.size, sha256, version if COMMIT.match(version) else None)

    @property
    def name(self) -> str | None:
        """The blob's name, which is the Hub's ETag."""
        return self.blob or self.sha256

    @property
    def expected(self) -> str | None:
        """The expected digest, for messages."""
        return f"sha256:{self.sha256}" if self.sha256 else self.blob and f"git blob {self.blob}"

    def hasher(self) -> Hasher:
        """A hasher for the complete file, whose ``hexdigest`` :meth:`mismatch` compares."""
        if self.sha256 is not None:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    def mismatch(self, hexdigest: str) -> str | None:
        """The digest of a wrong file, for messages; ``None`` for the right file."""
        if self.sha256 is not None:
            return None if hexdigest == self.sha256 else f"sha256:{hexdigest}"
        return None if self.blob in (None, hexdigest) else f"git blob {hexdigest}"

    def is_in(self, place: Path) -> bool:
        """Whether ``place`` has this content; it is read."""
        if place.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return sha256_file(place) == PREFIX + self.sha256
        return self.blob is None or git_blob_sha1(place) == self.blob


class HubCache:
    """The part of the cache in ``root`` that belongs to one model repository."""

    def __init__(self, root: Path, repository: str) -> None:
        self.root: Path = root
        self._repository: str = repository
        self._folder: str = "models--" + repository.replace("/", "--")

    @property
    def storage(self) -> Path:
        return self.root / self._folder

    def snapshot(self, commit: str) -> Path:
        return self.storage / "snapshots" / commit

    def find(self, commit: str, path: str) -> Path | None:
        """Where a file of a commit is, or ``None``."""
        from huggingface_hub import try_to_load_from_cache

        place = try_to_load_from_cache(self._repository, path, cache_dir=self.root, revision=commit)
        return Path(place) if isinstance(place, str) else None

    def blob(self, name: str) -> Path:
        return self.storage / "blobs" / name

    def branch(self, name: str) -> Path | None:
        """The file that says which commit a branch was."""
        return self.storage / "refs" / name if path_problem(name) is None else None

    def remember_branch(self, name: str, commit: str) -> None:
        """Record the commit of a branch, as the client does, so that it resolves offline."""
        place = self.branch(name)
        if place is None or name == commit:
            return
        new = place.with_name(f"{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            if place.is_file() and place.read_text() == commit:
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(commit)
            new.replace(place)
        except OSError:
            new.unlink(missing_ok=True)  # a read-only cache still works

    def unfinished(self, name: str) -> Path:
        """A place for a blob while it arrives, named as the client names its own."""
        return self.blob(f"{name}.{secrets.token_hex(4)}.incomplete")

    def publish(self, arrived: Path, name: str, commit: str, path: str) -> Path:
        """Give a verified file its place, over a wrong file there."""
        blob = self.blob(name)
        arrived.replace(blob)
        return self.link(blob, commit, path, moves=True)

    def link(self, blob: Path, commit: str, path: str, *, moves: bool = False) -> Path:
        """A commit's name for a blob; without symbolic links, the blob itself (``moves``) or a
        copy of it."""
        pointer = self.snapshot(commit) / path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        new = pointer.with_name(f"{pointer.name[:200]}.{secrets.token_hex(4)}.tmp")
        try:
            if _links():
                with suppress(OSError, NotImplementedError):
                    new.symlink_to(os.path.relpath(blob, pointer.parent))
            if not new.is_symlink():
                if moves:
                    blob.replace(new)
                else:
                    shutil.copyfile(blob, new)
            new.replace(pointer)
        finally:
            new.unlink(missing_ok=True)
        return pointer

    @contextmanager
    def turn(
        self, name: str, *, ready: Callable[[], bool], patience: float, tick: Callable[[], None]
    ) -> Generator[None]:
        """Hold the client's own lock of a blob, so that no other client fetches it meanwhile.

        The lock only saves traffic. Waiting for it ends at ``ready()``, or after ``patience``
        seconds in which no part of the blob grew; then the block runs without it. ``tick`` is
        called while waiting, and may raise."""
        from filelock import Timeout
        from huggingface_hub.utils import WeakFileLock

        lock = self.root / ".locks" / self._folder / f"{name}.lock"
        self.blob(name).parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        seen, since = self._growth(name), time.monotonic()
        while True:
            held = WeakFileLock(lock, timeout=_LOCK_TRY)
            try:
                held.__enter__()
            except Timeout:
                tick()
                now = self._growth(name)
                if now != seen:
                    seen, since = now, time.monotonic()
                if ready() or time.monotonic() - since > patience:
                    yield
                    return
                continue
            break
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def _growth(self, name: str) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for place in self.blob(name).parent.glob(f"{name}*.incomplete"):
            with suppress(OSError):
                found.append((place.name, place.stat().st_size))
        return sorted(found)


def cached_fact(place: Path, path: str) -> FileFact:
    """A cached file: its size, and the name of the blob that its link points to."""
    blob = place.readlink().name if place.is_symlink() else ""
    sha256 = f"sha256:{blob}" if _SHA256.match(blob) else None
    known = blob if sha256 or COMMIT.match(blob) else None
    return FileFact(path, place.stat().st_size, sha256, known)


def _links() -> bool:
    from huggingface_hub import constants

    return not getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False)
