"""What a lock pins, or what changed in it, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .console import Styled, out, say
from .render import print_table, short_digest
from .verbosity import is_quiet

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..registry.locks.diff import Change

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def print_changes(changes: Sequence[Change], old: Lock | None, new: Lock) -> None:
    """Print what a first lock pins, or what changed since ``old``, entry by entry. Nothing with
    --quiet."""
    if is_quiet():
        return
    if old is None:
        from ..manifests.lockfile import LOCK_COLUMNS, lock_rows

        rows = lock_rows(new, lambda digest: short_digest(digest, out))
        print_table(LOCK_COLUMNS, rows, out)
        return
    names = sorted({*old.adapters, *new.adapters}, key=len, reverse=True)
    for entry, group in _by_entry(changes, names).items():
        name = entry.removeprefix("adapters.")
        if entry != name and name not in old.adapters:
            added = new.adapters[name]
            _mark("+", entry, f"{added.source} {short_digest(added.digest, out)}".rstrip())
        elif entry != name and name not in new.adapters:
            _mark("-", entry, f"{old.adapters[name].source}")
        elif group[0].path == entry:
            _print_change(group[0], entry, 0)
        else:
            _mark("~", entry, "")
            for change in group:
                _print_change(change, change.path[len(entry) + 1 :], 4)


def _by_entry(changes: Iterable[Change], names: Sequence[str]) -> dict[str, list[Change]]:
    """Changes by adapter; other changes by their first key."""
    entries: dict[str, list[Change]] = {}
    for change in changes:
        section, _, rest = change.path.partition(".")
        entry = section
        if section == "adapters":
            # A name may contain dots, so take the longest declared one.
            entry += "." + next((n for n in names if f"{rest}.".startswith(f"{n}.")), rest)
        entries.setdefault(entry, []).append(change)
    return entries


def _print_change(change: Change, label: str, indent: int) -> None:
    old, new = short_digest(change.old, out), short_digest(change.new, out)
    if change.old is None:
        _mark("+", label, new, indent)
    elif change.new is None:
        _mark("-", label, old, indent)
    else:
        _mark("~", label, f"{old} -> {new}", indent)


def _mark(sign: str, label: str, text: str, indent: int = 0) -> None:
    parts: list[Styled] = [(f"{sign} {label}", _STYLES[sign])]
    if text:
        parts.append(f": {text}")
    say(*parts, indent=indent)
