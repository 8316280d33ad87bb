"""What the journal must say about the files of a registry, and which lines it lacks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...manifests.language.published_names import wrong_alias, wrong_name
from ...manifests.language.versions import parse_version
from ..storages.layout import (
    ADAPTERS,
    JOURNAL,
    RULES,
    alias_folder,
    entry_file,
    is_signature,
    marks_folder,
)
from ..storages.storage import Storage
from .inventory import Part, Series
from .journal import now
from .marks import Action, Mark, read_mark, said, text_or_none
from .series import DIGITS, Value, append, file_of, read_value

Line = Mapping[str, Any]
PATIENCE = 5.0
"""Seconds for which a publisher, who is faster, may write its line itself."""


def line_of_entry(name: str, version: str, digest: str, created: str) -> Line:
    """The line of a published entry."""
    return {"what": "publish", "name": name, "version": version, "entry": digest, "at": created}


def lines_of(series: Series, values: Sequence[Value], entry: str | None) -> list[Line]:
    """The lines of a series' values. ``entry`` is the digest of the version that marks are of.
    Raises :class:`IntegrityError` for a mark that says nothing."""
    found: list[Line] = []
    before = Mark()
    for value in values:
        data = value.data
        texts = {key: text_or_none(data.get(key)) for key in ("by", "at", "why")}
        about: dict[str, Any]
        if series.part is Part.ALIAS:
            version = text_or_none(data.get("version"))
            about = {
                "what": "demote" if version is None else "promote",
                "name": series.name,
                "alias": series.what,
                "version": version,
                "entry": text_or_none(data.get("entry")),
            }
        elif series.part is Part.MARKS:
            after = read_mark(series.folder, value)
            about = {
                "what": action_between(before, after),
                "name": series.name,
                "version": series.what,
                "entry": entry,
            }
            before = after
        else:
            about = {"what": "rules"}
        found.append(said({**about, **texts, "serial": value.number, "value": value.digest}))
    return found


def file_of_line(line: Line) -> str | None:
    """The path of the file that a line is about; ``None`` where it names none."""
    what, serial = line.get("what"), line.get("serial")
    file = file_of(serial) if type(serial) is int and 0 < serial < 10**DIGITS else None
    if what == "rules":
        return None if file is None else f"{RULES}/{file}"
    name, version, alias = (text_or_none(line.get(key)) for key in ("name", "version", "alias"))
    if name is None or wrong_name(name) is not None:  # it becomes a path
        return None
    if alias is not None:
        known = file is not None and wrong_alias(alias) is None
        return f"{alias_folder(name, alias)}/{file}" if known else None
    if version is None or parse_version(version) is None:
        return None
    if what == "publish":
        return entry_file(name, version)
    return None if file is None else f"{marks_folder(name, version)}/{file}"


def signature_of_line(line: Line) -> str | None:
    """The path of the signature that was written with what a line is about, or later."""
    name, path = text_or_none(line.get("name")), text_or_none(line.get("signature"))
    if name is None or path is None or wrong_name(name) is not None:
        return None
    return path if is_signature(name, path) else None


def line_of_signature(path: str) -> Line | None:
    """The line of a signature; ``None`` for one of the rules, which are read by listing."""
    name = path.removeprefix(f"{ADAPTERS}/").partition("/signatures/")[0]
    return {"what": "sign", "name": name, "signature": path} if is_signature(name, path) else None


def missing(lines: Iterable[Line], journal: Iterable[Line]) -> list[Line]:
    """Those of ``lines`` that the journal lacks, oldest first."""
    there = {path for line in journal for path in _files(line)}
    return sorted(
        (line for line in lines if not there.issuperset(_files(line))),
        key=lambda line: (line["what"] == "sign", str(line.get("at", "")), line["what"]),
    )


def _files(line: Line) -> list[str]:
    found = (file_of_line(line), signature_of_line(line))
    return [path for path in found if path is not None]


def add_missing(
    storage: Storage,
    lines: Sequence[Line],
    last: Value | None,
    *,
    patience: float = PATIENCE,
    wait: Callable[[float], None] = time.sleep,
) -> list[Line]:
    """Append lines after ``last`` that nobody else has written meanwhile; those that were. Raises
    :class:`BrokenSeriesError`."""
    wait(patience)
    added: list[Line] = []
    written: set[str] = set()
    while (newer := _after(storage, last)) is not None:
        written.update(_files(newer.data))
        last = newer
    for line in lines:
        last = _append(storage, line, last, written, added)
    return added


def _append(
    storage: Storage,
    line: Line,
    last: Value | None,
    written: set[str],
    added: list[Line],
) -> Value | None:
    newest, nonce = last, secrets.token_hex(8)

    def make(seen: Value | None) -> Line | None:
        nonlocal newest
        newest = seen
        if seen is not None:
            written.update(_files(seen.data))
        if written.issuperset(_files(line)):
            return None
        snapshot = None if seen is None else seen.data.get("snapshot")
        more = {"recovered": now(), "snapshot": snapshot, "nonce": nonce}
        return said({**line, **more})

    done = append(storage, JOURNAL, make, last)
    if done is not None:
        added.append(line)
    return newest if done is None else done


def _after(storage: Storage, last: Value | None) -> Value | None:
    try:
        return read_value(storage, JOURNAL, 1 if last is None else last.number + 1)
    except FileNotFoundError:
        return None


def action_between(before: Mark, after: Mark) -> Action:
    """What was done between two marks of a version."""
    if after.deprecated and not before.deprecated:
        return "deprecate"
    return "yank" if after.yanked else "unyank"
