"""The index of a registry for searches: thin rows and their words in SQLite, which a query asks.

An index can only hide or add what a search shows. It is of one connection; the file that it is kept
in is ``index_file``'s.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records.thin_row import COLUMNS, ThinRow, base_names, plain
from .recent import Key, Recent

FORMAT = "2"
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE bases (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE versions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, entry TEXT, created TEXT,
    method TEXT, rank INTEGER, licence TEXT, owner TEXT, tags TEXT, description TEXT, marks TEXT,
    base INTEGER, UNIQUE (name, version)
);
CREATE TABLE unread (name TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (name, version));
CREATE VIRTUAL TABLE words USING fts5(
    name, tags, description, owner, base, content='', tokenize='unicode61 remove_diacritics 2'
);
"""
_WEIGHTS = "10, 5, 1, 1, 2"
"""Of the columns of ``words``: a match in the name counts most."""
_COLUMNS = (
    "v.name, v.version, v.entry, v.created, v.method, v.rank, v.licence, v.owner, v.tags, "
    "v.description, v.marks, b.text"
)
_TAGS, _MARKS = COLUMNS.index("tags"), COLUMNS.index("marks")


@dataclass(frozen=True)
class Query:
    """What is searched. ``text`` is what a user typed: each word must be the start of a word of the
    name, tags, description, owner or base. Everything must hold."""

    text: str = ""
    method: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Found:
    """The best rows, and how many there are in all."""

    rows: tuple[ThinRow, ...] = ()
    total: int = 0


@dataclass(frozen=True)
class State:
    """How much of the journal is in an index: up to line ``number``, whose digest is ``digest``."""

    number: int = 0
    digest: str | None = None


class UnusableIndexError(Exception):
    """The database is not an index of this version."""


@dataclass
class SearchIndex:
    """An index on a connection. What SQLite refuses is a ``sqlite3.Error``."""

    connection: sqlite3.Connection
    _bases: dict[str, int] = field(default_factory=dict)
    """Numbers of bases that were looked up, by text."""
    _names: dict[int, str] = field(default_factory=dict)
    """Their names as words."""

    @classmethod
    def create(cls, connection: sqlite3.Connection, registry: str, version: str) -> SearchIndex:
        """An empty index. ``version`` is adapterdock's: a later one may understand more entries."""
        connection.executescript(_TABLES)
        index = cls(connection)
        for key, value in (("format", FORMAT), ("registry", registry), ("version", version)):
            index._set(key, value)
        return index

    @classmethod
    def of(cls, connection: sqlite3.Connection, registry: str, version: str) -> SearchIndex:
        """The index that is there. Raises :class:`UnusableIndexError` for another one's."""
        found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        wanted = (FORMAT, registry, version)
        if tuple(found.get(key) for key in ("format", "registry", "version")) != wanted:
            raise UnusableIndexError
        return cls(connection)

    @property
    def state(self) -> State:
        found = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        number = found.get("number", "0")
        if not number.isdecimal():
            raise UnusableIndexError
        return State(int(number), found.get("digest"))

    def add(self, rows: Iterable[ThinRow], marks: Mapping[Key, tuple[str, ...]]) -> None:
        """Add rows that are new, and change the marks of those that are there."""
        (last,) = self.connection.execute("SELECT max(id) FROM versions").fetchone()
        new = {row.key: row for row in rows}
        if last is not None:
            new = {key: row for key, row in new.items() if not self._has(key)}
        versions: list[tuple[object, ...]] = []
        words: list[tuple[object, ...]] = []
        for number, row in enumerate(new.values(), (last or 0) + 1):
            tags, base = json.dumps(row.tags), self._base(row.base)
            start = (number, row.name, row.version, row.entry, row.created, row.method, row.rank)
            end = (row.licence, row.owner, tags, row.description, _marks(row.marks), base)
            versions.append((*start, *end))
            tags, names = " ".join(row.tags), self._names[base]
            words.append((number, row.name, tags, row.description, row.owner, names))
        self.connection.executemany(
            "INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", versions
        )
        self.connection.executemany(
            "INSERT INTO words (rowid, name, tags, description, owner, base) VALUES (?,?,?,?,?,?)",
            words,
        )
        self.connection.executemany(
            "UPDATE versions SET marks = ? WHERE name = ? AND version = ?",
            [(_marks(words), *key) for key, words in marks.items()],
        )

    def add_recent(self, more: Recent) -> None:
        """Add what the journal says, and remember up to which line."""
        self.add(more.rows, more.marks)
        self.add_unread(more.unread)
        self._set("number", str(more.number))
        self._set("digest", more.digest)

    def add_unread(self, keys: Iterable[Key]) -> None:
        """Remember versions that only a newer adapterdock can read."""
        self.connection.executemany("INSERT OR IGNORE INTO unread VALUES (?, ?)", keys)

    @property
    def unread(self) -> int:
        """How many versions only a newer adapterdock can read."""
        (count,) = self.connection.execute("SELECT count(*) FROM unread").fetchone()
        return count

    def bases(self) -> Mapping[int, str]:
        """The bases of all rows, by number."""
        return dict(self.connection.execute("SELECT id, text FROM bases").fetchall())

    def search(self, query: Query, bases: Collection[int] | None = None) -> Found:
        """The rows that match, the best first, of one name the newest first.

        Args:
            query: What is searched.
            bases: Numbers of bases, of which a row must have one; ``None`` for all.
        """
        where: list[str] = []
        values: list[object] = []
        words = match_of(query.text)
        if words:
            where.append("words MATCH ?")
            values.append(words)
        elif query.text.strip():
            return Found()
        for column in ("method", "licence"):
            if (wanted := getattr(query, column)) is not None:
                where.append(f"v.{column} = ? COLLATE NOCASE")
                values.append(plain(wanted))
        for tag in query.tags:
            where.append("EXISTS (SELECT 1 FROM json_each(v.tags) WHERE value = ? COLLATE NOCASE)")
            values.append(plain(tag))
        if bases is not None:
            self._choose(bases)
            where.append("v.base IN (SELECT id FROM temp.chosen)")
        source = "versions v" if not words else "words JOIN versions v ON v.id = words.rowid"
        tail = f" WHERE {' AND '.join(where)}" if where else ""
        count = f"SELECT count(*) FROM {source}{tail}"
        (total,) = self.connection.execute(count, values).fetchone()
        best = f"bm25(words, {_WEIGHTS}), " if words else ""
        rows = self.connection.execute(
            f"SELECT {_COLUMNS} FROM {source} JOIN bases b ON b.id = v.base{tail} "
            f"ORDER BY {best}v.name, v.created DESC, v.id LIMIT ?",
            (*values, -1 if query.limit is None else query.limit),
        )
        return Found(tuple(map(_row, rows)), total)

    def _choose(self, bases: Collection[int]) -> None:
        self.connection.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (id INTEGER PRIMARY KEY)")
        self.connection.execute("DELETE FROM temp.chosen")
        rows = [(number,) for number in bases]
        self.connection.executemany("INSERT INTO temp.chosen VALUES (?)", rows)

    def _has(self, key: Key) -> bool:
        found = self.connection.execute(
            "SELECT 1 FROM versions WHERE name = ? AND version = ?", key
        )
        return found.fetchone() is not None

    def _base(self, text: str) -> int:
        """The number of a base, which is added where it is new."""
        number = self._bases.get(text)
        if number is None:
            self.connection.execute("INSERT OR IGNORE INTO bases (text) VALUES (?)", (text,))
            found = self.connection.execute("SELECT id FROM bases WHERE text = ?", (text,))
            (number,) = found.fetchone()
            self._bases[text] = number
            self._names[number] = plain(" ".join(base_names(text))) or ""
        return number

    def _set(self, key: str, value: str | None) -> None:
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def match_of(text: str) -> str:
    """A user's words as an FTS5 expression: quoted, so that none of it is syntax."""
    words = [word.replace('"', " ") for word in (plain(text) or "").replace("\0", " ").split()]
    quoted = (f'"{word}"*' for word in words if any(c.isalnum() for c in word))
    return " ".join(quoted)


def _row(values: Sequence[Any]) -> ThinRow:
    found = [*values]
    try:
        found[_TAGS] = tuple(json.loads(found[_TAGS]))
        found[_MARKS] = tuple(found[_MARKS].split())
    except (ValueError, TypeError, AttributeError) as error:
        raise sqlite3.DatabaseError("a row is damaged") from error
    return ThinRow(*found)


def _marks(words: Iterable[str]) -> str:
    return " ".join(words)
