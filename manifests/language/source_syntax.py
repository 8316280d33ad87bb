"""What no source of any kind contains."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Line breaks, control characters, lone surrogates and marks that reverse or hide text.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


class SourceSyntaxError(ValueError):
    """Invalid source; the message says why and what to write instead.

    Attributes:
        instead: The source to write, where it is clear.
    """

    def __init__(self, message: str, instead: str | None = None) -> None:
        super().__init__(message)
        self.instead: str | None = instead


def check_seen(text: str) -> None:
    """Raise :class:`SourceSyntaxError` for characters that a reader does not see."""
    if _UNSEEN.search(text):
        raise SourceSyntaxError("it contains control characters or invisible marks")


def check_inside(path: str) -> None:
    """Raise :class:`SourceSyntaxError` for a path with steps that lead to another place."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise SourceSyntaxError(f"invalid folder {path!r}: it has empty steps, '.' or '..'")


def decode(text: str) -> str:
    """Without percent encoding. Raises :class:`SourceSyntaxError` for bytes that are not UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise SourceSyntaxError("a '%' does not encode UTF-8 text") from None
