"""What unquoted text means by YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML reads YAML 1.1, where ``no`` and ``on`` are booleans, ``2.10`` loses its zero and dates
become objects. Here text remains text unless it is clearly a number, a boolean or null.
"""

from __future__ import annotations

import re
from typing import Any, Final


class _NotNative:
    def __repr__(self) -> str:
        return "NOT_NATIVE"

    def __reduce__(self) -> str:
        return "NOT_NATIVE"


NOT_NATIVE: Final = _NotNative()
"""Marks a value that was read from text (``None`` is a value)."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]{1,100}\Z")
_OCT = re.compile(r"0o[0-7]{1,100}\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,100}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)\Z")
_NAN = frozenset({".nan", ".NaN", ".NAN"})


def resolve_plain(text: str) -> Any:
    """``None``, a bool, an int, a float, or the text itself.

    An integer of more than 100 digits remains text.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.match(text):
        return int(text)
    if _OCT.match(text):
        return int(text[2:], 8)
    if _HEX.match(text):
        return int(text[2:], 16)
    if len(text) <= 100 and _FLOAT.match(text):
        return float(text)
    if _INF.match(text):
        return float("-inf") if text[0] == "-" else float("inf")
    return float("nan") if text in _NAN else text
