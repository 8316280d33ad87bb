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
from .layout import JOURNAL, SNAPSHOTS
from .series import BrokenSeriesError, Value, append, read_value
from .snapshot import snapshot_number
from .storage import Storage


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
    return head(storage, _snapshot(storage) if storage.lists else 0)


def note(storage: Storage, line: Mapping[str, Any]) -> Value:
    """Append a line. It names the newest ``snapshot``, so that this is found without a listing."""
    try:
        newest = _snapshot(storage)
        last = head(storage, newest)
        named = {"snapshot": newest} if last is not None and 0 < newest <= last.number else {}
        line = {**line, **named, "nonce": secrets.token_hex(8)}
        written = append(storage, JOURNAL, lambda _: line, last)
    except BrokenSeriesError as error:
        where = Where(file=storage.url)
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), where)) from error
    assert written is not None
    return written


def _snapshot(storage: Storage) -> int:
    """The number of the newest snapshot: the journal has at least that many lines."""
    return max(filter(None, map(snapshot_number, storage.find(SNAPSHOTS))), default=0)


def _read(storage: Storage, number: int) -> Value | None:
    try:
        return read_value(storage, JOURNAL, number)
    except FileNotFoundError:
        return None


def now() -> str:
    """UTC, ISO 8601, in seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
