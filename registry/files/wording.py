"""How findings word names, numbers and a stranger's text."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 117 more``: a finding names a few of many alike."""
    found = [shown(name) for name in names]
    text = ", ".join(found[:most])
    return text if len(found) <= most else f"{text} and {len(found) - most} more"


def shown(text: str, most: int = 200) -> str:
    """A stranger's text, fit for a terminal: cut, and quoted where it holds what is not printed."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)


def count(number: int, noun: str) -> str:
    """``1 module``, ``3 modules``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
