"""Remove one entry of a mapping from YAML text, and change no other line.

The lines of the entry go, with the comments inside it and those right above it. Then the text is
read again, and must have exactly the data that it had before, without that entry.
"""

from __future__ import annotations

import re
from typing import Any

from .edit import BOM, read_text, refused, same
from .findings.errors import ManifestError
from .layout import Lines, chunks_of
from .reading.document import Document
from .reading.nodes import Entry, Map

_AFTER_FLOW = re.compile(r"[ \t]*,?[ \t]*(#[^\r\n]*)?(?=[\r\n]|\Z)")


def cut_entry(text: str, path: tuple[str, ...]) -> str:
    """``text`` without the entry at ``path``, which must exist.

    A mapping that loses its last entry becomes ``{}``.

    Raises :class:`ManifestError` if ``text`` cannot be read, or if the result would not be exactly
    what is wanted (such as an entry whose anchor is used elsewhere).
    """
    mark, body = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    before = read_text(body)
    after = _cut(body, before, path)
    try:
        exact = after is not None and same(read_text(after).data, _without(before.data, path))
    except ManifestError:
        exact = False
    if not exact or after is None:
        why = "it is written in an unusual way, or its anchor is used elsewhere"
        raise refused(before, path, why, verb="remove")
    return mark + after


def _cut(text: str, before: Document, path: tuple[str, ...]) -> str | None:
    """The text without the entry, or ``None`` where no line or part of one is only its own."""
    lines = Lines(text)
    node, first, end = before.root, 0, len(lines)
    owner: Entry | None = None
    for depth, part in enumerate(path):
        entry = node.entries[part]
        if not entry.own:
            return None
        if depth == len(path) - 1:
            return _cut_from(lines, node, owner, part, (first, end))
        if not isinstance(entry.value, Map) or entry.alias:
            return None
        if not node.flow and not entry.value.flow:
            found = chunks_of(lines, node, first, end)
            chunk = None if found is None else next(c for c in found.chunks if c.key == part)
            if chunk is None:
                return None
            first, end = chunk.start + 1, chunk.end
        node, owner = entry.value, entry
    raise AssertionError("A path has at least one part")


def _cut_from(
    lines: Lines, node: Map, owner: Entry | None, key: str, within: tuple[int, int]
) -> str | None:
    text = lines.text
    if node.flow:
        return _cut_flow(lines, node, key)
    found = chunks_of(lines, node, *within)
    if found is None:
        return None
    chunk = next(c for c in found.chunks if c.key == key)
    first, end = chunk.start, chunk.end
    while first > chunk.above and _is_attached(lines, first - 1, found.column):
        first -= 1
    after_blank = first > within[0] and lines.is_blank(first - 1)
    if after_blank and (end == len(lines) or lines.is_blank(end)):
        first -= 1
    rest = text[: lines.offset(first)] + text[lines.offset(end) :]
    if len(found.chunks) > 1:
        return rest
    if owner is None:
        return None
    colon = text.index(":", owner.key.spot.end) + 1
    return f"{rest[:colon]} {{}}{rest[colon:]}"


def _is_attached(lines: Lines, number: int, column: int) -> bool:
    return lines.is_comment(number) and lines.indent(number) == column


def _cut_flow(lines: Lines, node: Map, key: str) -> str:
    text, entry = lines.text, node.entries[key]
    start, end = entry.key.spot.start, max(entry.key.spot.end, entry.spot.end)
    line = lines.offset(lines.number(start))
    rest = _AFTER_FLOW.match(text, end)
    if rest is not None and not text[line:start].strip():  # it has its lines for itself
        return text[:line] + text[lines.offset(lines.number(rest.end()) + 1) :]
    others = [e for k, e in node.entries.items() if k != key]
    later = [e.key.spot.start for e in others if e.key.spot.start > start]
    if later:
        return text[:start] + text[min(later) :]
    earlier = [max(e.key.spot.end, e.spot.end) for e in others]
    return text[: max(earlier, default=start)] + text[end:]


def _without(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    if len(path) == 1:
        return {key: value for key, value in data.items() if key != path[0]}
    return {**data, path[0]: _without(data[path[0]], path[1:])}
