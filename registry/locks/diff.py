"""The differences between two locks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...manifests.lockfile import Lock

IGNORED = frozenset({"generator", "base.samples"})
"""Paths that may differ between two locks of the same content."""

_IMPLIED = re.compile(
    r"inputs$|adapters\.[^/]*\.files\.|"
    r"adapters\.[^/]*\.registry\.(version|entry|journal\.|alias\.sha256)|"
    r"base\.fingerprint\.(head_)?weights\.b?float16$"
)
"""Paths that change only together with a better one (an adapter's digest)."""


@dataclass(frozen=True)
class Change:
    """One difference between two locks: its path, and both values (``None``: absent)."""

    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.path}: {self.new}"
        if self.new is None:
            return f"- {self.path}: {self.old}"
        return f"~ {self.path}: {self.old} -> {self.new}"


def diff(old: Lock | None, new: Lock) -> list[Change]:
    """The differences between two locks, sorted by path."""
    before = _flat(old.model_dump(mode="json", exclude_none=True)) if old else {}
    after = _flat(new.model_dump(mode="json", exclude_none=True))
    return [
        Change(path, before.get(path), after.get(path))
        for path in sorted({*before, *after} - IGNORED)
        if before.get(path) != after.get(path) and not _IMPLIED.match(path)
    ]


def _flat(data: Any, path: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        flat: dict[str, str] = {}
        for key, value in data.items():
            flat.update(_flat(value, f"{path}.{key}" if path else str(key)))
        return flat
    if isinstance(data, list):
        return {path: ", ".join(map(str, data))} if data else {}
    return {path: str(data)}
