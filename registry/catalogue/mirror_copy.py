"""Copying files of a registry: each is verified before it is written."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Where
from ..files.digests import PREFIX, sha256_bytes
from ..files.disk import guarded
from ..files.pool import each
from ..files.progress import Progress
from ..records.entry import LIMIT, Entry, InvalidEntryError, read_entry
from ..records.inventory import Inventory
from ..records.journal_lines import file_of_line
from ..records.series import BrokenSeriesError, Value, check_chain, file_of, read_value
from ..signatures.envelope import LIMIT as ENVELOPE_LIMIT
from ..storages.layout import JOURNAL, blob_file
from ..storages.storage import Storage, write_once
from .catalogue import Catalogue
from .hold import held


@dataclass
class Copying:
    """From ``origin`` to ``storage``. ``copied`` has the bytes of what was copied, by path."""

    origin: Catalogue
    storage: Storage
    wanted: Inventory
    there: Inventory
    workers: int
    progress: Progress
    copied: dict[str, int] = field(default_factory=dict)
    _journal: list[Value] = field(default_factory=list)
    _claimed: dict[str, str] = field(default_factory=dict)

    def entries(self, paths: Sequence[str], lacking: frozenset[str]) -> None:
        """Copy the contents that these entries need, and then those of the entries that are
        ``lacking``."""
        read = dict(zip(paths, each(self._entry, paths, self.workers), strict=True))
        sizes = {file.sha256: file.size for entry, _ in read.values() for file in entry.files}
        new = [path for path in paths if path in lacking]
        needed = {file.sha256 for path in new for file in read[path][0].files}
        # what an entry needs that is copied now is looked for again: a gc may have removed it
        needed |= {digest for digest in sizes if digest not in self.there.blobs}
        if not needed:
            return
        with held(self.storage, needed) as hold:
            self._contents(sorted(needed), sizes)
            while hold.renew():
                self._contents(sorted(needed), sizes)
            each(lambda path: self._write(path, read[path][1]), new, self.workers)

    def series(self, paths: Sequence[str]) -> None:
        """Copy files of series, in order, where they continue what is there."""
        folders = list(_numbers(paths).items())
        read = each(lambda item: self._read(*item, workers=1), folders, self.workers)
        each(self._append, list(zip([f for f, _ in folders], read, strict=True)), self.workers)

    def read_journal(self, paths: Sequence[str]) -> None:
        """Read the new lines of the journal: entries must be as they say."""
        for folder, numbers in _numbers(paths).items():
            self._journal = self._read(folder, numbers, workers=self.workers)
        for line in self._journal:
            path, digest = file_of_line(line.data), line.data.get("entry")
            if line.data.get("what") == "publish" and path and isinstance(digest, str):
                self._claimed[path] = digest

    def journal(self) -> None:
        """Copy the lines that were read."""
        self._append((JOURNAL, self._journal))

    def signatures(self, paths: Sequence[str]) -> None:
        def copy(path: str) -> None:
            try:
                raw = self.origin.storage.read(path, ENVELOPE_LIMIT + 1)
            except FileNotFoundError:
                return  # of an entry that somebody else published first
            name = path.rpartition("/")[2].removesuffix(".json")
            if sha256_bytes(raw) != PREFIX + name:
                raise self._damaged(f"{path} has other bytes than its name says")
            self._write(path, raw)

        each(copy, paths, self.workers)

    def snapshots(self, paths: Sequence[str]) -> None:
        """Copy files as they are: they decide nothing."""
        for path in paths:
            self._stream(path, self.wanted.sizes[path], None)

    def _entry(self, path: str) -> tuple[Entry, bytes]:
        entry, raw = entry_at(self.origin, path, self.wanted.entries[path])
        claimed = self._claimed.get(path, sha256_bytes(raw))
        if claimed != sha256_bytes(raw):
            text = f"{path} is not the file that the journal names"
            raise self._damaged(text, sha256_bytes(raw), claimed)
        return entry, raw

    def _read(self, folder: str, numbers: Sequence[int], *, workers: int) -> list[Value]:
        """New files of a series, which chain with what is there."""
        storage = self.origin.storage
        try:
            before = read_value(self.storage, folder, numbers[0] - 1) if numbers[0] > 1 else None
            if list(numbers) != list(range(numbers[0], numbers[0] + len(numbers))):
                raise BrokenSeriesError(f"{folder} has a gap")
            values = each(lambda number: read_value(storage, folder, number), numbers, workers)
            for one, value in zip([before, *values], values, strict=False):
                check_chain(folder, one, value)
        except (BrokenSeriesError, FileNotFoundError) as error:
            raise IntegrityError(
                codes.HISTORY_BROKEN.finding(str(error), self.origin.where)
            ) from error
        return values

    def _append(self, item: tuple[str, Sequence[Value]]) -> None:
        folder, values = item
        for value in values:
            self._write(f"{folder}/{file_of(value.number)}", value.raw)

    def _contents(self, digests: Iterable[str], sizes: Mapping[str, int]) -> None:
        def copy(digest: str) -> None:
            path = blob_file(digest)
            try:
                self.storage.read(path, 1)
            except FileNotFoundError:
                self._stream(path, sizes[digest], digest)

        each(copy, list(digests), self.workers)

    def _stream(self, path: str, size: int, expected: str | None) -> None:
        """Copy a large file through this machine's temporary folder."""
        with tempfile.TemporaryDirectory(prefix="adapterdock-mirror-") as folder:
            place = Path(folder) / "content"
            found = self._download(path, size, place)
            if expected is not None and found != expected:
                raise self._damaged(f"{path} has other bytes than its name says", found, expected)
            try:
                self.storage.create(path, place)
            except FileExistsError:  # another mirror was faster
                return
            self.copied[path] = size

    def _download(self, path: str, size: int, place: Path) -> str:
        digest = hashlib.sha256()
        self.progress.start(path, size)
        try:
            with guarded(place), place.open("wb") as file:
                for chunk in self._chunks(path):
                    digest.update(chunk)
                    file.write(chunk)
                    self.progress.advance(path, len(chunk))
        finally:
            self.progress.done(path)
        return PREFIX + digest.hexdigest()

    def _chunks(self, path: str) -> Iterable[bytes]:
        try:
            yield from self.origin.storage.chunks(path)
        except FileNotFoundError:
            raise self._damaged(f"{path} is missing, which an entry needs") from None

    def _write(self, path: str, raw: bytes) -> None:
        if not write_once(self.storage, path, raw):
            raise IntegrityError(
                codes.MIRROR_DIFFERS.finding(
                    f"{path} has other bytes than in the origin", Where(file=self.storage.url)
                )
            )
        self.copied[path] = len(raw)

    def _damaged(
        self, text: str, found: str | None = None, expected: str | None = None
    ) -> IntegrityError:
        return IntegrityError(
            codes.REGISTRY_DAMAGED.finding(text, self.origin.where, found=found, expected=expected)
        )


def _numbers(paths: Iterable[str]) -> dict[str, list[int]]:
    """By series' folder, the numbers of its files, in order."""
    folders: dict[str, list[int]] = {}
    for path in paths:
        folder, _, file = path.rpartition("/")
        folders.setdefault(folder, []).append(int(file.partition(".")[0]))
    return folders


def entry_at(origin: Catalogue, path: str, key: tuple[str, str]) -> tuple[Entry, bytes]:
    """An entry and its bytes. Raises :class:`IntegrityError`."""
    try:
        raw = origin.storage.read(path, LIMIT + 1)
        return read_entry(raw, *key), raw
    except (InvalidEntryError, FileNotFoundError) as error:
        raise IntegrityError(
            codes.ENTRY_INVALID.finding(
                f"Cannot use the entry of {key[0]}@{key[1]}", origin.where, found=error
            )
        ) from error


def blobs_of(
    origin: Catalogue, wanted: Inventory, paths: Sequence[str], workers: int
) -> dict[str, int]:
    """By path, the bytes of each content that these entries need."""
    found = each(lambda path: entry_at(origin, path, wanted.entries[path])[0], paths, workers)
    return {blob_file(file.sha256): file.size for entry in found for file in entry.files}
