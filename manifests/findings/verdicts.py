"""What the errors of a report mean together, in a few words.

Codes are named by their ids here: findings show themselves with this file, so it knows none of
their objects.
"""

from __future__ import annotations

from collections.abc import Iterable

INVALID = "invalid manifest"
UNREADABLE = "cannot be read"
FORBIDDEN = "not allowed by a policy"
CHANGED = "changed since it was locked"
DOES_NOT_FIT = "does not fit"

_PREFIXES = {
    "AD1": INVALID,
    **dict.fromkeys(("AD20", "AD21", "AD22", "AD23", "AD24"), UNREADABLE),
}
BY_ID = {
    "AD228": CHANGED,
    "AD379": INVALID,
    "AD389": UNREADABLE,
    "AD393": FORBIDDEN,
    "AD397": UNREADABLE,
    "AD501": "lock cannot be read",
    "AD502": "lock cannot be read",
    "AD504": "not locked",
    "AD505": "lock is not current",
    "AD506": "lock is not current",
    "AD509": CHANGED,
    "AD517": "lock cannot be read",
    "AD518": "lock has a merge conflict",
    "AD612": CHANGED,
    "AD614": CHANGED,
    **{f"AD{number}": FORBIDDEN for number in range(850, 857)},
}
"""What one code means; before what its first digits say."""


def meaning(code: str) -> str:
    """What an error of this code says about a manifest."""
    first = (words for prefix, words in _PREFIXES.items() if code.startswith(prefix))
    return BY_ID.get(code) or next(first, DOES_NOT_FIT)


def what_is_wrong(codes: Iterable[str]) -> str:
    """``invalid manifest``, ``not locked`` ... where all errors are of that kind, else ``does not
    fit``."""
    kinds = {meaning(code) for code in codes}
    return kinds.pop() if len(kinds) == 1 else DOES_NOT_FIT
