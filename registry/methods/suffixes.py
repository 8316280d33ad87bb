"""Few names for many modules: the shortest endings that select these modules and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection


def endings_of(wanted: Collection[str], known: Collection[str]) -> list[str]:
    """Names that select all of ``wanted`` and nothing else of ``known``, compared completely or
    from a dot on: ``q_proj`` where every module of that name is wanted, else as much of the path as
    is needed. In the order of ``wanted``."""
    every = {*known, *wanted}
    there = Counter(end for name in every for end in _endings(name))
    chosen = Counter(end for name in set(wanted) for end in _endings(name))
    found: dict[str, None] = {}
    for name in wanted:
        ends = _endings(name)
        # a name with a chosen ending is selected already
        if not any(end in found for end in ends):
            found[next((end for end in ends if there[end] == chosen[end]), name)] = None
    return list(found)


def _endings(name: str) -> list[str]:
    """``c``, ``b.c``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[at:]) for at in reversed(range(len(parts)))]
