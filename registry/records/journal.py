"""The journal: one numbered line for each publish, promotion, mark and rule.

It makes "what is new" cheap. Nothing is decided by it: a line that a kill left out hides something
from a search, until ``registry verify`` adds it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Where
from ..storages.layout import JOURNAL, SNAPSHOTS
from ..storages.storage import Storage
from .series import BrokenSeriesError, Value, append, read_value
from .snapshot import snapshot_number


def head(storage: Storage, known: int = 0) -> Value | None:
    """The last line, found from a ``known`` number on: one read where nothing was added."""
    last = _read(storage, known) if known else None
    low, step = (known if last is not None else 0), 1
    while (value := _read(storage, low + step)) is not None:
        last, low, step = value, low + step, step * 2
    high = low + step  # there is a line ``low``, and none ``high``
    while high - low > 1:
        middle = (low + high) // 2
        if (value := _read(storage, middle)) is None:
            high = middle
        else:
            last, low = value, middle
    return last


def last_line(storage: Storage) -> Value | None:
    """The last line, found from the newest snapshot on, where snapshots can be listed."""
    return _last_and_snapshot(storage)[0] if storage.lists else head(storage)


def note(storage: Storage, line: Mapping[str, Any]) -> Value:
    """Append a line. It names the newest ``snapshot``, so that this is found without a listing."""
    try:
        last, newest = _last_and_snapshot(storage)
        named = {"snapshot": newest} if newest else {}
        line = {**line, **named, "nonce": secrets.token_hex(8)}
        written = append(storage, JOURNAL, lambda _: line, last)
    except BrokenSeriesError as error:
        where = Where(file=storage.url)
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), where)) from error
    assert written is not None
    return written


def _last_and_snapshot(storage: Storage) -> tuple[Value | None, int]:
    """The last line, found from the newest snapshot on, and the number of that: the journal has at
    least that many lines. Snapshots of more lines are not this journal's."""
    numbers = [n for path in storage.find(SNAPSHOTS) if (n := snapshot_number(path))]
    last = head(storage, max(numbers, default=0))
    there = 0 if last is None else last.number
    return last, max((n for n in numbers if n <= there), default=0)


def _read(storage: Storage, number: int) -> Value | None:
    try:
        return read_value(storage, JOURNAL, number)
    except FileNotFoundError:
        return None


def now() -> str:
    """UTC, ISO 8601, in seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
