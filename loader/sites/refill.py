"""Giving a dictionary back what it had."""

from __future__ import annotations

from typing import Any


def refill(known: dict[Any, Any], old: dict[Any, Any]) -> None:
    """Let ``known``, which other threads read meanwhile, have what ``old`` has and nothing else;
    what is in both is never away."""
    for key in [key for key in known if key not in old]:
        del known[key]
    known.update(old)


def reorder(known: dict[Any, Any], old: dict[Any, Any]) -> None:
    """The same, in the order of ``old``."""
    refill(known, old)
    if [*known] != [*old]:
        for key in old:
            known[key] = known.pop(key)
