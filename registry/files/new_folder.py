"""The folder that a merged model is written into: whole under its name, or not there.

It is written under another name beside it, and old and new exchange their names. Where the system
cannot do that the old one is renamed first: a process that is killed just then leaves it under
another name, from which the next merge brings it back. A folder that is there already is replaced
only if it is one of ours, which the header of its weights says.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import AdapterdockError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.owner import left_beside, made_beside
from .disk import remove, sync_file, sync_folder
from .exchange import exchange
from .header import read_local_header
from .names import BASE_CONFIG, BASE_INDEX, BESIDE_A_BASE, TOKENIZER_FILES

MARK = "adapterdock.merged"
"""The key of a safetensors header's metadata that tells what was merged."""

_NEW, _OLD = "merging", "merged"

_WRITTEN = frozenset({BASE_CONFIG, BASE_INDEX, *BESIDE_A_BASE, *TOKENIZER_FILES})


def check_free(out: Path) -> None:
    """Raise :class:`UsageError` unless ``out`` is not there, is an empty folder, or holds a model
    that was merged by us and nothing else."""
    with _told(out):
        if not out.exists() and not out.is_symlink():
            return
        where = Where(file=str(out))
        if not out.is_dir():
            raise UsageError(codes.OUT_NOT_EMPTY.finding("this is no folder", where))
        entries = sorted(out.iterdir())
        foreign = [entry.name for entry in entries if not _written_by_us(entry)]
        weights = any(entry.suffix == ".safetensors" for entry in entries)
        if foreign or (entries and not weights):
            raise UsageError(
                codes.OUT_NOT_EMPTY.finding(
                    "the folder holds something that was not written by a merge",
                    where,
                    found=", ".join((foreign or [entry.name for entry in entries])[:5]),
                )
            )


def _written_by_us(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return path.name in _WRITTEN or path.suffix == ".py"
    try:
        return MARK in read_local_header(path).metadata
    except AdapterdockError:
        return False


@contextmanager
def replacing(out: Path) -> Generator[Path]:
    """A new folder to write into, which becomes ``out`` at the end of the block; where anything
    goes wrong it is removed, and what was at ``out`` stays. Raises :class:`UsageError` where the
    disk refuses."""
    out = out.resolve()
    with _told(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear(out)
    new, old = made_beside(out, _NEW), made_beside(out, _OLD)
    try:
        with _told(out):
            new.mkdir()
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    sync_file(path)
            check_free(out)
            _swap(new, out, old)
            sync_folder(out.parent)
    finally:
        remove(new)
        if out.exists():
            remove(old)


def _clear(out: Path) -> None:
    """What killed merges left: an earlier result comes back, the rest goes."""
    for old in reversed(left_beside(out, _OLD)):
        if not out.exists():
            old.rename(out)
        remove(old)
    for new in left_beside(out, _NEW):
        remove(new)


def _swap(new: Path, out: Path, old: Path) -> None:
    if not out.exists():
        new.rename(out)
        return
    if exchange(new, out):
        return
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise


@contextmanager
def _told(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise UsageError(
            codes.UNWRITABLE.finding(
                "the merged model cannot be written",
                Where(file=str(out)),
                found=f"{error.filename}: {said}" if error.filename else said,
            )
        ) from error
