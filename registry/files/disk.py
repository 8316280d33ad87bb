"""The disk: its errors as findings, and a few operations."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...manifests.findings import store as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import StoreError, UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.usage import UNWRITABLE
from ...manifests.owner import left_beside, made_beside

_CODES: dict[int, Code] = {
    errno.ENOSPC: codes.NO_SPACE,
    errno.EDQUOT: codes.NO_SPACE,
    errno.EFBIG: codes.NO_SPACE,
    errno.EROFS: codes.CACHE_READ_ONLY,
    errno.EACCES: codes.CACHE_PERMISSION,
    errno.EPERM: codes.CACHE_PERMISSION,
    errno.ENOTDIR: codes.CACHE_NOT_A_FOLDER,
    errno.EEXIST: codes.CACHE_NOT_A_FOLDER,
    errno.ENAMETOOLONG: codes.PATH_TOO_LONG,
}

_NEW = "new"

FileMark = tuple[int, ...] | None
"""What changes when a file does."""


def output_path(text: str | os.PathLike[str]) -> Path:
    """The path that is to be written. Raises :class:`UsageError` for an empty text, which would
    mean the current folder: it is what a variable gives that is not set."""
    if not os.fspath(text).strip():
        raise UsageError(
            UNWRITABLE.finding(
                "The path to write is empty",
                found=repr(os.fspath(text)),
                expected="a path",
                hint="Set the variable that the command names, or write . for this folder.",
            )
        )
    return Path(text)


def fault(error: OSError, path: Path, where: Where = Where()) -> Finding:  # noqa: B008 - frozen
    """The finding for ``error``; ``path`` is used where the error names no file."""
    code = _CODES.get(error.errno or 0, codes.CACHE_IO)
    name = error.filename if isinstance(error.filename, str) else str(path)
    what = error.strerror or type(error).__name__
    return code.finding(f"{name}: {what}", where, found=f"[Errno {error.errno}] {what}")


def out_of_space(error: BaseException) -> OSError | None:
    """The full disk or quota among the causes of ``error``, which a source's own error may hide."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, OSError) and _CODES.get(current.errno or 0) is codes.NO_SPACE:
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


@contextmanager
def guarded(path: Path, where: Where = Where()) -> Generator[None]:  # noqa: B008 - frozen
    """Turn an ``OSError`` inside into a :class:`StoreError`."""
    try:
        yield
    except OSError as error:
        raise StoreError(fault(error, path, where)) from error


def listing(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; empty if it does not exist. Raises :class:`StoreError`."""
    with guarded(folder), suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def remove(path: Path) -> None:
    """Remove a file or a folder, also read-only ones, as far as the disk allows."""
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114 - never raise
        with suppress(OSError):
            path.unlink()
        return
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(out: Path, code: Code, message: str) -> Generator[None]:
    """Makes errors of the disk :class:`UsageError`, for a place that the user chose."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise UsageError(
            code.finding(
                message,
                Where(file=str(out)),
                found=f"{error.filename}: {said}" if error.filename else said,
            )
        ) from error


def move_folder(source: Path, target: Path) -> bool:
    """Give a folder, also a read-only one, a name that is free. ``False`` where another process was
    first: the folder is gone, or the name taken. Raises :class:`OSError`."""
    try:
        source.chmod(0o755)
        source.rename(target)
    except (FileNotFoundError, FileExistsError):
        return False
    except OSError:
        if target.exists():
            return False
        raise
    return True


def close_folder(folder: Path) -> None:
    """Make a folder and those in it read-only. It cannot be moved then."""
    for inside, _, _ in os.walk(folder):
        with suppress(OSError):
            Path(inside).chmod(0o555)


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file in one step, and remove what killed writers of it left. Only this user can read
    a ``private`` one. Raises :class:`OSError`; then the file is as it was."""
    for left in left_beside(path, _NEW):
        remove(left)
    new = made_beside(path, _NEW)
    try:
        new.touch(mode=0o600 if private else 0o666, exist_ok=False)
        new.write_bytes(content)
        sync_file(new)
        new.replace(path)
        sync_folder(path.parent)
    finally:
        remove(new)


def write_output(path: Path, content: bytes, message: str) -> None:
    """:func:`replace_file` at a place that the user chose. Raises :class:`UsageError` with
    ``message``; then the file is as it was."""
    with writing(path, UNWRITABLE, message):
        if path.is_dir():  # `.` and `/` have no name to write beside
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        replace_file(path, content)


def file_mark(path: Path) -> FileMark:
    """Changes when the file does; ``None`` for a missing one."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def sync_file(path: Path) -> None:
    """Flush a file to the disk. Raises :class:`OSError`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with suppress(OSError):
        sync_file(folder)
