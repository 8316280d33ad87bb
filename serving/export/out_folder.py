"""The folder of an export: new adapters take their places one by one, each in one step.

Everything is written below a hidden name in the folder first. Then the record says what is to be
replaced, each adapter exchanges its name with the old one, and the record says what is there. A
process that is killed leaves each adapter old or new, and complete; the next export knows all files
as its own, and removes what is hidden.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.owner import left_beside, made_beside
from ...registry.files.alone import alone
from ...registry.files.digests import sha256_file
from ...registry.files.disk import remove, sync_file, sync_folder, writing
from ...registry.files.exchange import swap
from .record import (
    RECORD,
    SCHEMA,
    Exported,
    Locked,
    Origin,
    Record,
    WrittenFile,
    read_record,
    write_record,
)

_NEW = "new"


@dataclass(frozen=True)
class Outcome:
    """What an export did, by the adapters' names. ``record`` is what is there now."""

    record: Record
    written: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Staged:
    """An adapter that was written, below ``folder``: its row, and whether the same is in place."""

    row: Exported
    folder: Path = field(default_factory=Path)


class OutFolder:
    """The folder ``out``, which one export at a time writes into: see :func:`opened`."""

    def __init__(self, out: Path, staging: Path, before: Record | None) -> None:
        self._out = out
        self._staging = staging
        self._before = before
        self._staged: dict[str, Staged] = {}

    def require_free(self, entries: Iterable[str]) -> None:
        """Raise :class:`UsageError` where something that no export wrote has one of these names, or
        is below one of them."""
        self._require_own(sorted(entries))
        if RECORD in entries:
            raise UsageError(_occupied(self._out / RECORD, "the record of the export"))

    def require_of(self, manifest: Origin, lock: Locked) -> None:
        """Raise :class:`UsageError` where another manifest was exported into the folder. One with
        the same lock has the same adapters, so it counts as the same."""
        old = self._before
        if old is None or old.manifest.location == manifest.location or old.lock == lock:
            return
        raise UsageError(
            codes.EXPORT_OF_ANOTHER.finding(
                "This folder has the export of another manifest",
                Where(file=str(self._out / RECORD)),
                found=old.manifest.location,
                expected=manifest.location,
            )
        )

    def stage(self, name: str, write: Callable[[Path], Exported]) -> None:
        """Write an adapter with ``write(folder)``, which returns its row; its paths are below that
        folder."""
        folder = self._staging / f"{len(self._staged)}"
        folder.mkdir()
        row = write(folder)
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
                sync_file(path)
            else:
                path.chmod(0o755)
                sync_folder(path)
        self._staged[name] = Staged(row, folder)

    def publish(self, manifest: Origin, lock: Locked, *, keep: bool) -> Outcome:
        """Put everything staged in place. With ``keep``, adapters that were not staged stay;
        without, they are removed."""
        before, left = self._settled()
        rows = {name: one.row for name, one in self._staged.items()}
        same = tuple(name for name, row in rows.items() if self._is_there(row))
        gone = {} if keep else {n: row for n, row in before.items() if n not in rows}
        after = {**{n: row for n, row in before.items() if n not in gone}, **rows}
        self._require_apart(after)
        entries = {row.entry for row in after.values()}
        old = self._before or Record(schema=SCHEMA, manifest=manifest, lock=lock)
        meant = old.model_copy(update={"adapters": before, "replacing": {**left, **rows}})
        doomed = sorted(meant.own().keys() - entries)
        self._require_own(doomed)
        if len(same) < len(rows) or doomed:
            write_record(self._out, meant)
        for name, one in self._staged.items():
            if name not in same:
                self._put(one.row.entry, one.folder / one.row.entry)
        for number, entry in enumerate(doomed):
            if os.path.lexists(self._out / entry):
                (self._out / entry).rename(self._staging / f"removed-{number}")
        sync_folder(self._out)
        record = Record(schema=SCHEMA, manifest=manifest, lock=lock, adapters=after)
        write_record(self._out, record)
        written = tuple(name for name in rows if name not in same)
        return Outcome(record, written, same, tuple(sorted(gone)))

    def _settled(self) -> tuple[dict[str, Exported], Mapping[str, Exported]]:
        """The adapters in the folder, and what a killed export was about to put there. An adapter
        that it did put there counts as in the folder."""
        if self._before is None:
            return {}, {}
        left = self._before.replacing
        there = {name: row for name, row in left.items() if self._is_there(row)}
        return {**self._before.adapters, **there}, left

    def _require_own(self, entries: Iterable[str]) -> None:
        """Raise :class:`UsageError` where there is more below these names than the export's own."""
        own = {} if self._before is None else self._before.own()
        findings = [
            _occupied(self._out / entry, foreign)
            for entry in entries
            for foreign in [_foreign(self._out, entry, own.get(entry, frozenset()))]
            if foreign is not None
        ]
        if findings:
            raise UsageError(*findings)

    def _put(self, entry: str, new: Path) -> None:
        """Give ``new`` the name ``entry``; the old one is below the hidden name afterwards."""
        place = self._out / entry
        if os.path.lexists(place) and not place.is_dir() and not new.is_dir():
            new.replace(place)
        else:
            swap(new, place, new.with_name(f"{new.name}.old"))

    def _is_there(self, row: Exported) -> bool:
        """Whether exactly this adapter is in place."""
        if _files_in(self._out, row.entry) != set(row.files):
            return False
        with suppress(OSError):
            return all(
                (self._out / path).stat().st_size == file.size
                and sha256_file(self._out / path) == file.sha256
                for path, file in row.files.items()
            )
        return False

    def _require_apart(self, rows: Mapping[str, Exported]) -> None:
        """Raise :class:`UsageError` where two adapters have one name in the folder."""
        seen: dict[str, str] = {}
        for name, row in rows.items():
            other = seen.setdefault(row.entry, name)
            if other != name:
                raise UsageError(_occupied(self._out / row.entry, f"adapter {other!r}"))


@contextmanager
def opened(out: Path) -> Generator[OutFolder]:
    """The folder of an export, which is created if it is missing. What a killed export left hidden
    is removed. Raises :class:`UsageError` for a folder that another export writes into, one with an
    invalid record, and for errors of the disk inside the block."""
    new = not out.exists()
    with writing(out, codes.EXPORT_UNWRITTEN, "Cannot write the export"):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            writing(out, codes.EXPORT_UNWRITTEN, "Cannot write the export"),
            alone(out, codes.EXPORT_BUSY, "Another export writes into this folder"),
        ):
            before = read_record(out)
            inside = out / "adapterdock-export"
            for left in (*left_beside(inside, _NEW), *left_beside(out / RECORD, _NEW)):
                remove(left)
            staging = made_beside(inside, _NEW)
            staging.mkdir()
            try:
                yield OutFolder(out, staging, before)
            finally:
                remove(staging)
    finally:
        if new:
            with suppress(OSError):
                out.rmdir()  # nothing was exported


def written_files(folder: Path) -> dict[str, WrittenFile]:
    """The files below a folder, by path. Raises ``OSError``."""
    return {
        path.relative_to(folder).as_posix(): WrittenFile(
            size=path.stat().st_size, sha256=sha256_file(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _files_in(out: Path, entry: str) -> set[str]:
    """The paths of everything under a name that is not a real folder: files, links and others."""
    place = out / entry
    if place.is_symlink() or not place.is_dir():
        return {entry} if os.path.lexists(place) else set()
    return {
        path.relative_to(out).as_posix()
        for path in place.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _foreign(out: Path, entry: str, own: frozenset[str]) -> str | None:
    """A path under this name that is not among the export's ``own``."""
    place = out / entry
    if not os.path.lexists(place):
        return None
    if not own:
        return entry
    found = _files_in(out, entry)
    links = {path for path in found if not (out / path).is_file() or (out / path).is_symlink()}
    return min((found - own) | links, default=None)


def _occupied(place: Path, found: str) -> Finding:
    return codes.EXPORT_OCCUPIED.finding(
        "The export must write here, but no export wrote what is there",
        Where(file=str(place)),
        found=found,
    )
