"""The folder of a site: its pages take their places one by one, each in one step.

``adapterdock-site.json`` lists the files of a site. It is written before the first page, with old
and new files, and after the last. So a run that was killed leaves complete pages, old or new, and
the next run knows all of them as a site's own.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where
from ...manifests.owner import left_beside, made_beside
from ...registry.files.alone import alone
from ...registry.files.digests import path_problem
from ...registry.files.disk import remove, sync_file, sync_folder, writing

RECORD = "adapterdock-site.json"
SCHEMA = "adapterdock.site-files/1"
LIMIT = 16 << 20
"""Bytes of a record."""
_NEW = "new"


@dataclass(frozen=True)
class Written:
    """How many files were written, were the same already, and were removed."""

    written: int
    unchanged: int
    removed: int


def write_site(out: Path, files: Mapping[str, bytes]) -> Written:
    """Make ``out`` the site of these files.

    Args:
        out: A new or empty folder, or one that a site was written to.
        files: By relative path.

    Raises:
        UsageError: The folder has other files, another run writes into it, or the disk refuses.
    """
    new = not out.exists()
    with writing(out, codes.SITE_UNWRITTEN, "Cannot write the site"):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            writing(out, codes.SITE_UNWRITTEN, "Cannot write the site"),
            alone(out, codes.SITE_BUSY, "Another run writes a site into this folder"),
        ):
            return _write(out, files)
    finally:
        if new:
            with suppress(OSError):
                out.rmdir()  # nothing was written


def _write(out: Path, files: Mapping[str, bytes]) -> Written:
    _clear_hidden(out)
    before = _own(out)
    _require_free(out, before, files)
    changed = [path for path, content in files.items() if not _is(out / path, content)]
    doomed = sorted(path for path in before - files.keys() if os.path.lexists(out / path))
    if changed or doomed or before != frozenset(files):
        staging = made_beside(out / "adapterdock-site", _NEW)
        staging.mkdir()
        try:
            _put_record(out, staging, before | files.keys())
            for number, path in enumerate(changed):
                _put(staging / str(number), out / path, files[path])
            for path in doomed:
                (out / path).unlink()
            _remove_empty(out, doomed)
            _put_record(out, staging, files.keys())
        finally:
            remove(staging)
    return Written(len(changed), len(files) - len(changed), len(doomed))


def _put(staged: Path, place: Path, content: bytes) -> None:
    staged.write_bytes(content)
    place.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(place)


def _put_record(out: Path, staging: Path, paths: Iterable[str]) -> None:
    data = {"schema": SCHEMA, "files": sorted(paths)}
    staged = staging / RECORD
    staged.write_text(f"{json.dumps(data, indent=1)}\n", encoding="utf-8")
    sync_file(staged)
    staged.replace(out / RECORD)
    sync_folder(out)


def _own(out: Path) -> frozenset[str]:
    """The files that a site wrote here. Raises :class:`UsageError` for an invalid record."""
    place = out / RECORD
    try:
        if not stat.S_ISREG(place.lstat().st_mode):
            raise _invalid(place, "not a file")
        with place.open("rb") as stream:
            data = json.loads(stream.read(LIMIT))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, RecursionError):
        raise _invalid(place, "not JSON") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise _invalid(place, "another format")
    paths = data.get("files")
    if not isinstance(paths, list) or not all(isinstance(p, str) and _inside(p) for p in paths):
        raise _invalid(place, "invalid paths")
    return frozenset(paths)


def _require_free(out: Path, own: frozenset[str], files: Mapping[str, bytes]) -> None:
    """Raise :class:`UsageError` where something is in the folder that no site wrote."""
    folders = {str(parent) for path in {*own, *files} for parent in PurePosixPath(path).parents}
    for place, inside, names in os.walk(out, onerror=_raise):
        for name in sorted((*inside, *names)):
            path = Path(place, name)
            relative = path.relative_to(out).as_posix()
            if relative == RECORD:
                continue
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder and relative in folders:
                continue
            if not is_folder and relative in own and not path.is_symlink():
                continue
            raise UsageError(
                codes.SITE_OCCUPIED.finding(
                    "The folder has files that no site wrote", Where(file=str(out)), found=relative
                )
            )


def _raise(error: OSError) -> None:
    raise error


def _is(place: Path, content: bytes) -> bool:
    """Whether exactly this is there."""
    try:
        return place.stat().st_size == len(content) and place.read_bytes() == content
    except OSError:
        return False


def _remove_empty(out: Path, paths: list[str]) -> None:
    for path in paths:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                with suppress(OSError):
                    (out / parent).rmdir()


def _clear_hidden(out: Path) -> None:
    for left in left_beside(out / "adapterdock-site", _NEW):
        remove(left)


def _inside(path: str) -> bool:
    return path != RECORD and path_problem(path) is None


def _invalid(place: Path, found: str) -> UsageError:
    return UsageError(
        codes.SITE_OCCUPIED.finding(
            "The list of a site's files is invalid", Where(file=str(place)), found=found
        )
    )
