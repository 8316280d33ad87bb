"""How findings write names, numbers, and text from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def some(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 117 more``."""
    found = [shown(name) for name in names]
    text = ", ".join(found[:most])
    return text if len(found) <= most else f"{text} and {len(found) - most} more"


def listed(names: Sequence[str], noun: str) -> str:
    """``120 modules: a, b, c and 117 more``."""
    return f"{count(len(names), noun)}: {some(names)}"


def shown(text: str, most: int = 200) -> str:
    """Text from outside, safe for a terminal: cut, and quoted if it cannot be printed."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)


def count(number: int, noun: str) -> str:
    """``1 module``, ``3 modules``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
