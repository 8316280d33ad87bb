"""Restoring the content of a dictionary that other threads read."""

from __future__ import annotations

from typing import Any


def refill(known: dict[Any, Any], old: dict[Any, Any]) -> None:
    """Give ``known`` exactly the items of ``old``; an item that is in both is never missing."""
    for key in [key for key in known if key not in old]:
        del known[key]
    known.update(old)


def reorder(known: dict[Any, Any], old: dict[Any, Any]) -> None:
    """The same, and in the order of ``old``."""
    refill(known, old)
    if [*known] != [*old]:
        for key in old:
            known[key] = known.pop(key)
