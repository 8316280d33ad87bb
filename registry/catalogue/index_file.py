"""The index of a registry in the cache: one SQLite file for each registry and place.

It is brought up to date from the newest snapshot and the journal. Several processes may use one
file. One that is damaged, or of another version, is built again; where the cache cannot be written
to, the index is in memory.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ... import __version__
from ...manifests.findings import store as store_codes
from ...manifests.findings.errors import StoreError
from ...manifests.findings.finding import Finding
from ..files.digests import sha256_bytes
from ..store.store import Store
from .catalogue import Catalogue
from .recent import Recent, last_line, recent
from .search_index import SearchIndex, UnusableIndexError
from .take_snapshot import EVERY, Known, newest_snapshot, snapshot_numbers

_log = logging.getLogger(__name__)

FOLDER = "registries"
"""In the cache."""
_PATIENCE = 10.0
"""Seconds to wait for another process that changes the same file."""
_TRIES = 20
_UNUSABLE = (sqlite3.Error, UnusableIndexError, OSError, StoreError)


def index_path(store: Store, catalogue: Catalogue) -> Path:
    """Where the index of a registry is. A copy of the registry at another place has its own: it may
    be behind."""
    return store.root / FOLDER / f"{catalogue.id}-{_place(catalogue.storage.url)}.sqlite"


@contextmanager
def current_index(
    catalogue: Catalogue, store: Store, *, in_memory: bool = False
) -> Generator[tuple[SearchIndex, list[Finding]]]:
    """The index of a registry as it is now, and the snapshots that were ignored for it.

    What the block asks of a damaged file is a ``sqlite3.Error``: then :func:`forget_index`.

    Args:
        catalogue: The registry.
        store: The cache.
        in_memory: Do not use the cache.
    """
    path = index_path(store, catalogue)
    problems: list[Finding] = []
    connection = None if in_memory else _updated(catalogue, path)
    if connection is None:
        fill = _filled(catalogue, problems)
        connection = (None if in_memory else _kept(store, path, fill)) or _in_memory(fill)
    with closing(connection):
        yield SearchIndex(connection), problems


@contextmanager
def kept_index(url: str, store: Store) -> Generator[tuple[SearchIndex, float] | None]:
    """The index that was last used of the registry at ``url``, which cannot be reached now, and
    when it was current (seconds since 1970); ``None`` where there is none that can be used."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        paths = (store.root / FOLDER).glob(f"*-{_place(url)}.sqlite")
        found = sorted(((path.stat().st_mtime, path) for path in paths), reverse=True)
    for at, path in found:
        try:
            connection = _open(path)
        except sqlite3.Error:
            continue
        with closing(connection):
            try:
                index = SearchIndex.of(connection, path.name.partition("-")[0], __version__)
            except _UNUSABLE:
                continue
            yield index, at
            return
    yield None


def forget_index(catalogue: Catalogue, store: Store) -> None:
    """Remove an index that turned out to be damaged."""
    with suppress(OSError):
        index_path(store, catalogue).unlink(missing_ok=True)


class _Fill:
    """Fills an empty database."""

    def __init__(self, catalogue: Catalogue, known: Known, more: Recent) -> None:
        self._catalogue, self._known, self._more = catalogue, known, more

    def __call__(self, connection: sqlite3.Connection) -> None:
        with connection:
            index = SearchIndex.create(connection, self._catalogue.id, __version__)
            index.add(self._known.rows, {})
            index.add_unread(self._known.unread)
            index.add_recent(self._more)


def _filled(catalogue: Catalogue, problems: list[Finding]) -> _Fill:
    known = newest_snapshot(catalogue)
    problems += known.problems
    return _Fill(catalogue, known, recent(catalogue, known.number))


def _place(url: str) -> str:
    return sha256_bytes(url.encode("utf-8", "replace")).rpartition(":")[2][:16]


def _updated(catalogue: Catalogue, path: Path) -> sqlite3.Connection | None:
    """The index in a file, brought up to date; ``None`` where it has to be built."""
    if not path.is_file():
        return None
    connection: sqlite3.Connection | None = None
    try:
        connection = _open(path)
        current = _brought_up(catalogue, connection)
        with suppress(OSError):
            os.utime(path)  # when it was current
        return current
    except _UNUSABLE as error:
        _log.info("%s is built again: %s", path, error or type(error).__name__)
        if connection is not None:
            connection.close()
        return None


def _brought_up(catalogue: Catalogue, connection: sqlite3.Connection) -> sqlite3.Connection:
    index = SearchIndex.of(connection, catalogue.id, __version__)
    for _ in range(_TRIES):
        state = index.state
        last = last_line(catalogue, state.number)
        lines = (0 if last is None else last.number) - state.number
        if lines > EVERY and max(snapshot_numbers(catalogue.storage), default=0) > state.number:
            raise UnusableIndexError("a snapshot is faster")
        more = recent(catalogue, state.number, last)
        if lines < 0 or more.follows != state.digest:
            raise UnusableIndexError("the journal is another one")
        if not lines:
            return connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if index.state == state:  # else another process was faster
                index.add_recent(more)
                connection.execute("COMMIT")
                return connection
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:  # a cache that cannot be written to
            _log.info("The index is changed in memory: %s", error)
            copy = _copied(connection)
            with copy:
                SearchIndex(copy).add_recent(more)
            return copy
    raise UnusableIndexError("other processes keep changing it")


def _copied(connection: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.backup(copy)
    connection.close()
    return copy


def _kept(store: Store, path: Path, fill: _Fill) -> sqlite3.Connection | None:
    """The index in a new file, or ``None`` where the cache cannot be written to. It gets its name
    when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.temporary() as new:
            with closing(sqlite3.connect(new)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                fill(connection)
            new.replace(path)
        return _open(path)
    except _UNUSABLE as error:
        _log.info("The index is in memory: %s", error)
        return None


def _in_memory(fill: _Fill) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    try:
        fill(connection)
    except sqlite3.Error as error:  # a Python whose SQLite has no full-text search
        connection.close()
        raise StoreError(store_codes.CACHE_IO.finding(f"SQLite cannot search: {error}")) from error
    return connection


def _open(path: Path) -> sqlite3.Connection:
    # no file is created here, and transactions are started and ended by hand
    uri = f"{path.as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
