"""Two histories of one registry made one: the numbers that both used are given again.

Pure. In git, two branches that promote, mark or publish use the same numbers. One branch wins and
keeps its files. The other one's files of each series are appended after them, with new numbers, and
the journal's lines about them are changed accordingly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..files.digests import sha256_bytes
from ..records.entry import InvalidEntryError, parse_object
from ..records.inventory import JOURNAL_SERIES, Inventory, Part, Series, take_inventory
from ..records.journal_lines import action_between
from ..records.marks import Mark, read_mark
from ..records.series import Value, canonical, file_of
from ..storages.layout import IDENTITY, rules_signatures_folder, value_signatures_folder

_OF_HISTORY = frozenset(
    {"previous", "serial", "value", "entry", "snapshot", "signature", "yanked", "deprecated"}
)
"""Fields that another number changes. Where there is a nonce, it tells two files apart."""
Tree = Mapping[str, bytes]
"""Files of a registry by path, without contents."""


@dataclass(frozen=True)
class Move:
    """A file of a series that got another number."""

    before: str
    after: str


@dataclass(frozen=True)
class Renumbered:
    """One history of two.

    Attributes:
        files: All files.
        moved: Which files of the losing side got another number.
        unsigned: Signatures of the losing side that sign nothing any more; they are not in
            ``files``.
        clashes: Entries that both sides published with different content. Nothing was decided
            about them.
        unset: Rules of the losing side that are left out, because the winner's rules demand
            signatures that they cannot have.
    """

    files: Tree
    moved: tuple[Move, ...]
    unsigned: tuple[str, ...]
    clashes: tuple[str, ...]
    unset: tuple[str, ...] = ()


@dataclass
class _Making:
    winner: Tree
    loser: Tree
    files: dict[str, bytes] = field(default_factory=dict)
    moved: list[Move] = field(default_factory=list)
    digests: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of files of the losing side that changed: the new digest, and the new number."""
    unset: dict[str, str] = field(default_factory=dict)
    """Rules that are left out: by digest, the path."""
    folders: list[str] = field(default_factory=list)
    """Folders of signatures that sign nothing any more."""


def renumber(winner: Tree, loser: Tree) -> Renumbered:
    """Append what only ``loser`` has to what ``winner`` has. A file that was appended before (its
    nonce is there) is not appended again. Raises :class:`IntegrityError` for a mark that says
    nothing, and ``ValueError`` for a file of a series that is not a JSON object."""
    made = _Making(winner, loser, {**loser, **winner})
    ours, theirs = _inventory(winner), _inventory(loser)
    clashes = _entries(made, ours, theirs)
    for path in theirs.snapshots:  # of the other journal
        if path not in winner:
            del made.files[path]
    for series in sorted({*ours.series, *theirs.series} - {JOURNAL_SERIES}):
        _series(made, series, ours.series.get(series, ()), theirs.series.get(series, ()))
    journals = (one.series.get(JOURNAL_SERIES, ()) for one in (ours, theirs))
    _series(made, JOURNAL_SERIES, *journals)
    unsigned = [
        path
        for path in theirs.signatures
        if path not in winner and path.rpartition("/")[0] in made.folders
    ]
    for path in unsigned:
        del made.files[path]
    return Renumbered(
        made.files,
        tuple(made.moved),
        tuple(unsigned),
        tuple(clashes),
        tuple(made.unset.values()),
    )


def _inventory(tree: Tree) -> Inventory:
    return take_inventory({path: len(raw) for path, raw in tree.items()})


def _entries(made: _Making, ours: Inventory, theirs: Inventory) -> list[str]:
    """Entries that both sides published; those that differ in more than their time."""
    clashes: list[str] = []
    for path in sorted(ours.entries.keys() & theirs.entries.keys()):
        mine, other = made.winner[path], made.loser[path]
        if mine == other:
            continue
        if _without_time(mine) is None or _without_time(mine) != _without_time(other):
            clashes.append(path)
            continue
        made.digests[sha256_bytes(other)] = (sha256_bytes(mine), 0)
        name, version = ours.entries[path]
        made.folders.append(f"adapters/{name}/signatures/{version}")
    if made.winner.get(IDENTITY) != made.loser.get(IDENTITY):
        clashes.append(IDENTITY)
    return clashes


def _without_time(raw: bytes) -> dict[str, Any] | None:
    try:
        data = parse_object(raw)
    except InvalidEntryError:
        return None
    data.pop("created", None)
    return data


def _series(made: _Making, series: Series, ours: Sequence[str], theirs: Sequence[str]) -> None:
    mine = [_value(made.winner, path) for path in ours]
    other = [_value(made.loser, path) for path in theirs]
    common = 0
    while common < min(len(mine), len(other)) and mine[common].raw == other[common].raw:
        common += 1
    known = {_what(value): value for value in mine[common:]}
    for path in theirs[len(mine) :]:  # taken up below, with their right numbers
        made.files.pop(path, None)
    for at in range(common, len(other)):
        value = other[at]
        if (same := known.get(_what(value))) is not None:  # appended before
            made.digests[value.digest] = (same.digest, same.number)
            continue
        if _is_about_nothing(made, series, value):
            continue
        before = mine[-1] if mine else None
        if series.part is Part.RULES and common < len(ours) and before and before.data.get("keys"):
            made.unset[value.digest] = theirs[at]
            made.folders.append(_signatures(series, value.number))
            continue
        data = _changed(made, series, value, other[at - 1] if at else None, before)
        data["previous"] = None if before is None else before.digest
        new = Value(len(mine) + 1, canonical(data))
        mine.append(new)
        made.files[f"{series.folder}/{file_of(new.number)}"] = new.raw
        if new.raw != value.raw:
            path = f"{series.folder}/{file_of(new.number)}"
            made.moved.append(Move(theirs[at], path))
            made.digests[value.digest] = (new.digest, new.number)
            if series.part is not Part.JOURNAL:
                made.folders.append(_signatures(series, value.number))


def _what(value: Value) -> str:
    """What a file says, without the file before it: the same in every history."""
    return canonical({k: v for k, v in value.data.items() if k not in _OF_HISTORY}).decode()


def _is_about_nothing(made: _Making, series: Series, value: Value) -> bool:
    """Whether a line of the journal is about something that is left out."""
    if series.part is not Part.JOURNAL:
        return False
    if value.data.get("value") in made.unset:
        return True
    folder = str(value.data.get("signature")).rpartition("/")[0]
    return value.data.get("what") == "sign" and folder in made.folders


def _changed(
    made: _Making, series: Series, value: Value, before: Value | None, last: Value | None
) -> dict[str, Any]:
    """What a file of the losing side says after the winner's ``last`` file. ``before`` was the file
    before it."""
    data = dict(value.data)
    if isinstance(entry := data.get("entry"), str) and entry in made.digests:
        data["entry"] = made.digests[entry][0]
    if series.part is Part.MARKS:  # what it did, done to the winner's state
        was = Mark() if before is None else read_mark(series.folder, before)
        now = Mark() if last is None else read_mark(series.folder, last)
        mark = read_mark(series.folder, value)
        after = now.after(action_between(was, mark), mark.by, mark.at or "", mark.why)
        data.update(yanked=after.yanked, deprecated=after.deprecated)
    if series.part is Part.JOURNAL:
        if data.get("previous") != (None if last is None else last.digest):
            data.pop("snapshot", None)  # of the other journal
        if str(data.get("signature")).rpartition("/")[0] in made.folders:
            data.pop("signature")
        if isinstance(named := data.get("value"), str) and named in made.digests:
            data["value"], data["serial"] = made.digests[named]
    return data


def _signatures(series: Series, number: int) -> str:
    if series.part is Part.RULES:
        return rules_signatures_folder(number)
    return value_signatures_folder(series.name, series.folder, number)


def _value(tree: Tree, path: str) -> Value:
    raw = tree[path]
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a JSON object")
    return Value(int(path.rpartition("/")[2].partition(".")[0]), raw)
