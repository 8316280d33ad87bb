"""Remove one entry of a mapping from YAML text, and change no other line.

The lines of the entry go, with the comments inside it and those right above it. Then the text is
read again, and must have exactly the data that it had before, without that entry.
"""

from __future__ import annotations

import re
from typing import Any

from .edit import BOM, read_text, refused, same
from .findings.errors import ManifestError
from .layout import Lines, body_of, chunks_of
from .reading.document import Document
from .reading.nodes import Entry, Map

_KEY_END = re.compile(r"[ \t]*:([ \t]+[&!]\S*)*")
_COMMA = re.compile(r"[ \t]*,")
_LINE_REST = re.compile(r"[ \t]*(#[^\r\n]*)?(?=[\r\n]|\Z)")
_LOOSE = re.compile(r"(?:\s|#[^\r\n]*(?=[\r\n]))*(?=,)")


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
    node = before.root
    first, end = (0, len(lines)) if node.flow else body_of(lines, node)
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
    index = found.chunks.index(chunk)
    if index and found.chunks[index - 1].open:
        while end < len(lines) and lines.is_blank(end):  # they would become part of its text
            end += 1
    elif (
        first > within[0]
        and lines.is_blank(first - 1)
        and (end == len(lines) or lines.is_blank(end))
    ):
        first -= 1
    rest = text[: lines.offset(first)] + text[lines.offset(end) :]
    if len(found.chunks) > 1:
        return rest
    if owner is None:
        return None
    head = _KEY_END.match(text, owner.key.spot.end)
    return None if head is None else f"{rest[: head.end()]} {{}}{rest[head.end() :]}"


def _is_attached(lines: Lines, number: int, column: int) -> bool:
    return lines.is_comment(number) and lines.indent(number) == column


def _cut_flow(lines: Lines, node: Map, key: str) -> str:
    """The text without an entry in braces. A comment that may be about another entry stays."""
    text, entry = lines.text, node.entries[key]
    start, end = entry.key.spot.start, _end(entry)
    others = [e for k, e in node.entries.items() if k != key and e.own]
    earlier = max((_end(e) for e in others if e.key.spot.start < start), default=None)
    is_last = all(e.key.spot.start < start for e in others)
    comma = _COMMA.match(text, end)
    cut = end if comma is None else comma.end()
    number = lines.number(start)
    before = text[lines.offset(number) : start].strip()
    after = _LINE_REST.match(text, cut)
    own_comma = (not before and (comma or is_last)) or (before == "," and comma is None)
    if after is not None and own_comma:  # it has its lines for itself
        first, column = number, start - lines.offset(number)
        least = node.spot.start if earlier is None else earlier
        while lines.offset(first - 1) > least and _is_attached(lines, first - 1, column):
            first -= 1
        return text[: lines.offset(first)] + text[lines.offset(lines.number(after.end()) + 1) :]
    if earlier is not None and is_last and "#" not in text[earlier:start]:
        return text[:earlier] + text[end:]
    if comma is None and not is_last:  # it is after a comment
        kept = _LOOSE.match(text, end)
        rest = "" if kept is None else kept[0] + text[kept.end() + 1 :]
        return text[:start].rstrip(" \t") + rest
    head, rest = text[:start], text[cut:].lstrip(" \t")
    if rest.startswith(("#", "\r", "\n")):
        head = head.rstrip(" \t") + (" " if rest.startswith("#") else "")
    return head + rest


def _end(entry: Entry) -> int:
    return max(entry.key.spot.end, entry.spot.end)


def _without(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    if len(path) == 1:
        return {key: value for key, value in data.items() if key != path[0]}
    return {**data, path[0]: _without(data[path[0]], path[1:])}
