"""Names of published adapters that are confused easily."""

from __future__ import annotations


def one_edit_apart(one: str, other: str) -> bool:
    """Whether one inserted, removed, replaced or exchanged character makes one name the other."""
    if one == other:
        return False
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    exchanged = short[:at] + short[at : at + 2][::-1] + short[at + 2 :]
    return short[at + 1 :] == long[at + 1 :] or exchanged == long
