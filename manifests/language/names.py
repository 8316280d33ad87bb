"""Names of adapters, compositions and registries. Names are always compared in full."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME_PATTERN = r"^([A-WYZa-wyz][A-Za-z0-9._-]{0,62}|[Xx]([A-Za-z0-9._][A-Za-z0-9._-]{0,61})?)$"
NAME_RULE = "a letter, then up to 62 of A-Z a-z 0-9 . _ - (a name may not start with 'x-')"
BASE_ROW = "__base__"
"""PEFT's name for "no adapter" in ``adapter_names``. Not a valid name, so it cannot be declared."""

MAX_COMPARED = 200
"""Words that are compared for a suggestion, so that a large catalogue does not slow an error."""

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))


def is_name(text: str) -> bool:
    """Whether ``text`` may name an adapter, a composition or a registry."""
    return _NAME.match(text) is not None


def same_but_for_case(name: str, known: Iterable[str]) -> str | None:
    """The first of ``known`` that differs from ``name`` only in case."""
    lower = name.lower()
    return next((other for other in known if other != name and other.lower() == lower), None)


def did_you_mean(wrong: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """``"Did you mean 'x'?"`` for the nearest known word, or ``None`` if none is near enough
    (``likeness`` from 0 to 1)."""
    words = sorted(known)
    if len(words) > MAX_COMPARED:
        words = [word for word in words if word[:1] == wrong[:1]][:MAX_COMPARED]
    near = difflib.get_close_matches(wrong[:MAX_COMPARED], words, n=1, cutoff=likeness)
    return f"Did you mean {near[0]!r}?" if near else None


def listed(names: Iterable[str], limit: int = 20) -> str | None:
    """``"a, b, c and 7 more"``, or ``None`` if there are none."""
    words = list(names)
    if len(words) <= limit:
        return ", ".join(words) or None
    return f"{', '.join(words[:limit])} and {len(words) - limit} more"
