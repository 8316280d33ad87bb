"""gc: removes contents that no entry names. How it gets along with publishers is in ``hold``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Where
from ..files.pool import each
from ..records.entry import LIMIT as ENTRY_LIMIT
from ..records.inventory import blob_sizes, entry_paths
from ..records.series import canonical
from ..sources.failures import source_error
from ..storages.layout import (
    ADAPTERS,
    BLOBS,
    GC,
    HOLDS,
    blob_file,
    gc_closed,
    gc_file,
    gc_mark,
    gc_removed,
)
from ..storages.local_storage import LocalStorage
from ..storages.storage import Storage, write_once
from .catalogue import Catalogue
from .hold import DELETE, LEAST_GRACE, LIMIT, REMOVAL, digests_in, mark_bytes, open_runs, runs
from .init import require_creating

GRACE = 24 * 3600.0
"""Seconds for which the hold of a publisher counts, by default."""
WORKERS = 16


@dataclass(frozen=True)
class Collected:
    """What a gc did, or would do.

    Attributes:
        condemned: Contents (digests, with their bytes) that no entry named when it began.
        removed: Those that were removed.
        kept: Those that somebody published meanwhile, or is publishing.
        left: Those for which it had no time; the next gc removes them.
    """

    condemned: Mapping[str, int]
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(self.condemned[digest] for digest in self.removed)


@dataclass
class _Entries:
    """Which contents the entries name. Entries never change, so each is read once."""

    storage: Storage
    workers: int
    _read: dict[str, set[str]] = field(default_factory=dict)

    def needed(self) -> set[str]:
        paths = entry_paths(self.storage.find(ADAPTERS))
        new = [path for path in paths if path not in self._read]
        self._read.update(zip(new, each(self._digests, new, self.workers), strict=True))
        return {digest for path in paths for digest in self._read[path]}

    def _digests(self, path: str) -> set[str]:
        raw = self.storage.read(path, ENTRY_LIMIT + 1)
        if len(raw) > ENTRY_LIMIT:
            raise IntegrityError(
                codes.ENTRY_INVALID.finding(
                    "Cannot read an entry, so nothing is removed",
                    Where(file=self.storage.url),
                    found=path,
                    expected=f"at most {ENTRY_LIMIT} bytes",
                )
            )
        return digests_in(raw)


def collect(
    catalogue: Catalogue,
    *,
    grace: float = GRACE,
    dry_run: bool = False,
    workers: int = WORKERS,
    clock: Callable[[], float] = time.monotonic,
) -> Collected:
    """Remove the contents that no entry names.

    Args:
        catalogue: The registry; a mirror too.
        grace: Seconds for which the hold of a publisher counts. Less than :data:`LEAST_GRACE` is
            safe only while nobody publishes and no other gc runs.
        dry_run: Removes nothing.
        workers: Requests at the same time.
        clock: Seconds.

    Raises :class:`PolicyError` where the storage cannot create files exclusively,
    :class:`SourceError` where it does not list what was created, and :class:`IntegrityError` where
    an entry cannot be read.
    """
    storage = catalogue.storage
    entries = _Entries(storage, workers)
    blobs = blob_sizes(storage.find(BLOBS))
    needed = entries.needed()
    condemned = {digest: size for digest, size in blobs.items() if digest not in needed}
    if dry_run:
        return Collected(condemned)
    unfinished = storage.unfinished() if isinstance(storage, LocalStorage) else {}
    if not (condemned or unfinished or storage.find(HOLDS) or _unfinished(storage.find(GC))):
        return Collected({})
    require_creating(storage)
    return _run(storage, entries, condemned, unfinished, grace, workers, clock)


def _run(
    storage: Storage,
    entries: _Entries,
    condemned: Mapping[str, int],
    unfinished: Mapping[str, float],
    grace: float,
    workers: int,
    clock: Callable[[], float],
) -> Collected:
    started = clock()
    number = _begin(storage, condemned)
    now = _listed(storage, gc_file(number))
    # holds before entries: a hold is released only when its entry is there
    holds = storage.times(HOLDS)
    live = [path for path, at in holds.items() if not now - at >= grace]
    spared = _held_by(storage, live, workers)
    spared |= entries.needed()
    doomed = [digest for digest in condemned if digest not in spared]

    def remove(digest: str) -> bool | None:
        """Whether it was removed; ``None`` where there was no time left."""
        if (announced := clock()) - started > LEAST_GRACE / 2:
            return None
        if not write_once(storage, gc_mark(number, digest), mark_bytes(DELETE)):
            return False
        if in_time := clock() - announced <= REMOVAL / 4:
            storage.remove(blob_file(digest))
        write_once(storage, gc_removed(number, digest), b"")
        return True if in_time else None

    outcomes = dict(zip(doomed, each(remove, doomed, workers), strict=True))
    _close(storage, number)
    stale = [path for path in holds if path not in live]
    stale += [path for path, at in unfinished.items() if now - at >= grace]
    _clean(storage, now, grace, stale, workers)
    return Collected(
        condemned,
        tuple(digest for digest, outcome in outcomes.items() if outcome),
        tuple(digest for digest in condemned if outcomes.get(digest, False) is False),
        tuple(digest for digest, outcome in outcomes.items() if outcome is None),
    )


def _begin(storage: Storage, condemned: Iterable[str]) -> int:
    """Create the list of the condemned, under the next number."""
    raw = canonical({"condemned": sorted(condemned), "nonce": secrets.token_hex(8)})
    number = max(runs(storage.find(GC)), default=0) + 1
    while not write_once(storage, gc_file(number), raw):
        number += 1
    return number


def _listed(storage: Storage, path: str) -> float:
    """When a file was created that was created just now. Raises :class:`SourceError` where it is
    not listed: then an entry may not be either, and its contents would be removed."""
    at = storage.times(GC).get(path)
    if at is None:
        raise source_error(
            codes.STORAGE_CONTRADICTS,
            f"{storage.url}/{path} was created, and is not listed: nothing is removed",
            Where(file=storage.url),
            expected="a storage that lists each file as soon as it is created",
        )
    return at


def _close(storage: Storage, number: int) -> None:
    write_once(storage, gc_closed(number), b"")


def _clean(storage: Storage, now: float, grace: float, stale: Iterable[str], workers: int) -> None:
    """Remove what is of no use any more: what is ``stale`` (old holds, and files that nobody
    finishes), and the marks of closed runs. Runs that were killed long ago are closed."""
    times = storage.times(GC)
    for number in open_runs(times):
        if now - times[gc_file(number)] >= grace:
            _close(storage, number)
    each(storage.remove, [*stale, *_leftovers(storage.find(GC))], workers)


def _leftovers(paths: Iterable[str]) -> list[str]:
    """The marks of closed runs."""
    known = set(paths)
    closed = {gc_closed(number) for number in runs(known)} & known
    return sorted(
        path
        for path in known
        if path not in closed and f"{path.rpartition('/')[0]}/closed" in closed
    )


def _unfinished(paths: Iterable[str]) -> bool:
    return bool(open_runs(paths) or _leftovers(paths))


def _held_by(storage: Storage, paths: Iterable[str], workers: int) -> set[str]:
    """The contents that holds name."""

    def read(path: str) -> set[str]:
        try:
            return digests_in(storage.read(path, LIMIT))
        except FileNotFoundError:  # released: its entry is among those that are listed next
            return set()

    return set().union(*each(read, list(paths), workers))
