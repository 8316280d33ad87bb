"""The folder of a merged model: it is created on success only.

It is written under another name beside it, and old and new exchange their names. Where the system
cannot do that, the old folder is renamed first; if the process is killed at this moment, the next
merge restores it. An existing folder is replaced only if it is ours by the header of its weights.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import AdapterdockError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.owner import left_beside, made_beside
from .disk import remove, sync_file, sync_folder, writing
from .exchange import swap
from .header import read_local_header
from .names import BASE_CONFIG, BASE_INDEX, BESIDE_A_BASE, TOKENIZER_FILES

MARK = "adapterdock.merged"
"""The metadata key of a safetensors header with what was merged."""

_NEW, _OLD = "merging", "merged"
_CANNOT = "Cannot write the merged model"

_WRITTEN = frozenset({BASE_CONFIG, BASE_INDEX, *BESIDE_A_BASE, *TOKENIZER_FILES})


def check_free(out: Path) -> None:
    """Raise :class:`UsageError` unless ``out`` does not exist, is empty, or holds only a model that
    we merged."""
    with writing(out, codes.UNWRITABLE, _CANNOT):
        if not out.exists() and not out.is_symlink():
            return
        where = Where(file=str(out))
        if not out.is_dir():
            raise UsageError(codes.OUT_NOT_EMPTY.finding("The output path is not a folder", where))
        entries = sorted(out.iterdir())
        foreign = [entry.name for entry in entries if not _written_by_us(entry)]
        weights = any(entry.suffix == ".safetensors" for entry in entries)
        if foreign or (entries and not weights):
            raise UsageError(
                codes.OUT_NOT_EMPTY.finding(
                    "The output folder holds files that no merge has written",
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
    """A new folder to write into, which becomes ``out`` at the end of the block. On an error it is
    removed, and ``out`` stays as it was. Raises :class:`UsageError` for errors of the disk."""
    out = Path(os.path.realpath(out))  # a loop of links is no error here, as from Python 3.13 on
    with writing(out, codes.UNWRITABLE, _CANNOT):
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear(out)
    new, old = made_beside(out, _NEW), made_beside(out, _OLD)
    try:
        with writing(out, codes.UNWRITABLE, _CANNOT):
            new.mkdir()
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    sync_file(path)
            check_free(out)
            swap(new, out, old)
            sync_folder(out.parent)
    finally:
        remove(new)
        if out.exists():
            remove(old)


def _clear(out: Path) -> None:
    """Clean up after killed merges: restore an earlier result, remove the rest."""
    for old in reversed(left_beside(out, _OLD)):
        if not out.exists():
            old.rename(out)
        remove(old)
    for new in left_beside(out, _NEW):
        remove(new)
