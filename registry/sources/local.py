"""A folder on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ..files.facts import FileFact
from .folder import OnBytes
from .local_change import why_changed
from .opened import OpenedFolder, is_hidden
from .request import SourceRequest

_CHUNK = 1 << 20
_FROM_HERE = (
    "Check the spelling. A relative path of a call or an option starts from the current folder."
)
_Seen = tuple[int, int, int, int]


class LocalFolder(OpenedFolder):
    """A local folder. Its files have no version; a change between ``files`` and ``read`` is
    noticed by device, inode, size and time of change.

    Links are followed if they stay inside. Raises ``SourceError`` at once for a missing folder.
    """

    _waits: ClassVar[bool] = False

    def __init__(self, request: SourceRequest, folder: Path) -> None:
        super().__init__(request)
        self._root = self._real(folder)
        self._seen: dict[str, _Seen] = {}

    def expect(self, facts: Iterable[FileFact]) -> None:
        """See :meth:`OpenedFolder.expect`. A file here is looked at, which costs nothing."""
        for fact in facts:
            self._file(fact.path)
        super().expect(facts)

    def local(self, path: str) -> Path | None:
        self._fact(path)
        return self._root / path

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        self._fact(path)
        return self._root / path

    def _list(self) -> Iterator[FileFact]:
        yield from self._walk("", frozenset({self._identity(self._root)}))

    def _look(self, pin: FileFact) -> FileFact | None:
        return self._file(pin.path) if (self._root / pin.path).exists() else None

    def _why_changed(self, pin: FileFact) -> tuple[str, str | None]:
        return why_changed(self._root / pin.path, pin.sha256)

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        try:
            with (self._root / fact.path).open("rb") as file:
                self._unchanged(fact, os.fstat(file.fileno()))
                file.seek(start)
                while start < stop:
                    chunk = file.read(min(_CHUNK, stop - start))
                    self._unchanged(fact, os.fstat(file.fileno()))
                    if not chunk:
                        return
                    self._received(len(chunk))
                    start += len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise self._changed(fact.path, "no such file", f"{fact.size} bytes") from error
        except OSError as error:
            raise self._unreadable(fact.path, error) from error

    def _walk(self, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[FileFact]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._root / folder))
        except OSError as error:
            raise self._unreadable(folder or ".", error) from error
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if is_hidden(name):
                continue
            target = self._target(path)
            if not target.is_dir():
                yield self._file(path)
                continue
            identity = self._identity(target)
            if identity in above:
                raise self._error(
                    codes.OUTSIDE_SOURCE,
                    f"{self._shown(path)} is a link to a folder that contains it",
                    found=target,
                )
            self._check_depth(f"{path}/")
            yield from self._walk(path, above | {identity})

    def _file(self, path: str) -> FileFact:
        target = self._target(path)
        try:
            facts = target.stat()
        except OSError as error:
            raise self._unreadable(path, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise self._error(codes.UNREADABLE, f"{self._shown(path)} is not a regular file")
        self._seen[path] = _signature(facts)
        return FileFact(path, facts.st_size)

    def _target(self, path: str) -> Path:
        try:
            target = (self._root / path).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before 3.13
            raise self._unreadable(path, error) from error
        if not target.is_relative_to(self._root):
            raise self._error(
                codes.OUTSIDE_SOURCE,
                f"{self._shown(path)} is a link to a place outside the folder",
                found=f"-> {target}",
                expected=f"inside {self._root}",
            )
        return target

    def _identity(self, folder: Path) -> tuple[int, int]:
        facts = folder.stat()
        return (facts.st_dev, facts.st_ino)

    def _unchanged(self, fact: FileFact, now: os.stat_result) -> None:
        if _signature(now) != self._seen[fact.path]:
            raise self._changed(fact.path, f"{now.st_size} bytes, newer", f"{fact.size} bytes")

    def _unreadable(self, path: str, error: OSError | RuntimeError) -> SourceError:
        reason = error.strerror if isinstance(error, OSError) else None
        return self._error(
            codes.UNREADABLE,
            f"Cannot read {self._shown(path)}",
            found=reason or "a loop of links",
        )

    def _real(self, folder: Path) -> Path:
        try:
            root = folder.resolve(strict=True)
            if root.is_dir():
                return root
        except FileNotFoundError as error:
            hint = None if self._where.line is not None else _FROM_HERE  # of a call or an option
            raise self._error(
                codes.SOURCE_MISSING,
                f"{self._shown()} does not exist",
                found=f"nothing at {folder.resolve()}",
                hint=hint,
            ) from error
        except (OSError, RuntimeError) as error:
            raise self._unreadable(".", error) from error
        raise self._error(
            codes.SOURCE_NOT_A_FOLDER,
            f"{self._shown()} is a file",
            expected=f"its folder: {self._source.location.rpartition('/')[0] or '/'}",
        )


def _signature(facts: os.stat_result) -> _Seen:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def open_folder(request: SourceRequest) -> LocalFolder:
    """The folder on this machine; it takes no options."""
    request.only_options()
    return LocalFolder(request, request.source.local_path(request.directory))
