"""Git's conflict markers in a lock: where they are, and the text of each side."""

from __future__ import annotations

_OURS, _BASE, _MIDDLE, _THEIRS = b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>"


def first_conflict(raw: bytes) -> int | None:
    """The line, from 1, of the first conflict marker; ``None`` without one."""
    if _OURS not in raw and _THEIRS not in raw:
        return None
    for number, line in enumerate(raw.splitlines(), 1):
        if _is(line, _OURS) or _is(line, _THEIRS):
            return number
    return None


def both_sides(raw: bytes) -> tuple[bytes, bytes] | None:
    """The complete text of each side of a merge; ``None`` where the markers are not in pairs.

    Lines outside of conflicts belong to both sides. What both sides come from (git writes it in
    the style ``diff3``) belongs to none.
    """
    ours, theirs = bytearray(), bytearray()
    at: bytes | None = None
    for line in raw.splitlines(keepends=True):
        if (marker := _marker(line)) is None:
            if at in (None, _OURS):
                ours += line
            if at in (None, _MIDDLE):
                theirs += line
        elif at in _BEFORE[marker]:
            at = None if marker == _THEIRS else marker
        else:
            return None
    return (bytes(ours), bytes(theirs)) if at is None else None


_BEFORE: dict[bytes, tuple[bytes | None, ...]] = {
    _OURS: (None,),
    _BASE: (_OURS,),
    _MIDDLE: (_OURS, _BASE),
    _THEIRS: (_MIDDLE,),
}


def _marker(line: bytes) -> bytes | None:
    return next((marker for marker in _BEFORE if _is(line, marker)), None)


def _is(line: bytes, marker: bytes) -> bool:
    text = line.rstrip(b"\r\n")
    return text == marker or text.startswith(marker + b" ")
