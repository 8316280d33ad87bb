"""A registry in a folder of this machine: a disk, a network share, a git checkout."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files.digests import CHUNK
from ..files.disk import guarded, remove, sync_file, sync_folder

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp\Z")
_HERE = -100  # AT_FDCWD of linux/fcntl.h
_NO_REPLACE = 1  # RENAME_NOREPLACE of linux/fs.h


class LocalStorage:
    """See :class:`Storage`. A file is written beside its place and then linked to it, which fails
    where something has its name; on disks without hard links it is renamed in the same way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        return str(self._folder)

    @property
    def creates(self) -> bool:
        return True

    @property
    def lists(self) -> bool:
        return True

    def read(self, path: str, limit: int) -> bytes:
        place = self._folder / path
        with _passing(FileNotFoundError, place), place.open("rb") as file:
            return file.read(limit)

    def chunks(self, path: str) -> Iterator[bytes]:
        place = self._folder / path
        with _passing(FileNotFoundError, place), place.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def find(self, folder: str) -> Mapping[str, int]:
        return {path: status.st_size for path, status in self._files(self._folder / folder)}

    def times(self, folder: str) -> Mapping[str, float]:
        return {path: status.st_mtime for path, status in self._files(self._folder / folder)}

    def _files(self, folder: Path) -> Iterator[tuple[str, os.stat_result]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue  # git's own, and files that are being written
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield Path(entry.path).relative_to(self._folder).as_posix(), entry.stat()

    def create(self, path: str, content: bytes | Path) -> None:
        place = self._folder / path
        with _passing(FileExistsError, place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                raise FileExistsError(errno.EEXIST, "File exists", str(place))
            new = place.with_name(f".{place.name[:200]}.{os.urandom(4).hex()}.tmp")
            try:
                if isinstance(content, Path):
                    shutil.copyfile(content, new)
                else:
                    new.write_bytes(content)
                sync_file(new)
                _put(new, place)
                sync_folder(place.parent)
            finally:
                new.unlink(missing_ok=True)

    def unfinished(self) -> Mapping[str, float]:
        """Files that were being written, also those of writers that were killed, with their
        times."""
        found: dict[str, float] = {}
        for folder, inside, files in os.walk(self._folder):
            inside[:] = [name for name in inside if name != ".git"]
            for name in filter(_UNFINISHED.match, files):
                place = Path(folder) / name
                with suppress(OSError):  # finished meanwhile
                    found[place.relative_to(self._folder).as_posix()] = place.stat().st_mtime
        return found

    def remove(self, path: str) -> None:
        remove(self._folder / path)


def _put(new: Path, place: Path) -> None:
    """Give a file its name, where nothing has it."""
    try:
        os.link(new, place)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename(new, place)


def _rename(new: Path, place: Path) -> None:
    """The same without hard links (``renameat2`` of Linux)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, "this disk cannot create a file exclusively", str(place))
    if call(_HERE, os.fsencode(new), _HERE, os.fsencode(place), _NO_REPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))


@contextmanager
def _passing(expected: type[OSError], place: Path) -> Generator[None]:
    """What the disk refuses as a :class:`StoreError`, but for one exception."""
    with guarded(place):
        found: OSError | None = None
        try:
            yield
        except expected as error:
            found = error
    if found is not None:
        raise found
