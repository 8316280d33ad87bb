"""Set one mapping in YAML text, and change no other byte.

The text is changed at positions from the reader. Then it is read again, and must have exactly the
data that it had before, with that one mapping set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from .findings import language as codes
from .findings.errors import ManifestError
from .layout import Lines, after_deeper_comments, newline_of
from .reading.document import Document, read_document
from .reading.nodes import Entry, Map, is_null
from .reading.scalars import resolve_plain

BOM = "\ufeff"


def set_mapping(text: str, path: tuple[str, ...], value: Mapping[str, Any]) -> str:
    """``text`` with the mapping at ``path`` replaced by ``value``, or inserted.

    ``value`` has text, numbers, booleans, ``None``, lists and mappings. Missing parents are added.
    Comments inside the replaced mapping are lost; everything else is kept, line endings and quotes
    included.

    Raises :class:`ManifestError` if ``text`` cannot be read, if a part of ``path`` is not a
    mapping, or if the result would not be exactly what is wanted (such as a place that is shared
    through an anchor).
    """
    if not path:
        raise ValueError("A path needs at least one key")
    mark, body = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    before = read_text(body)
    after = _splice(body, before, path, value)
    wanted = _with(before.data, path, _as_read(value))
    try:
        exact = same(read_text(after).data, wanted)
    except ManifestError:
        exact = False
    if not exact:
        raise refused(before, path, "it is shared through an anchor, or written in an unusual way")
    return mark + after


def read_text(text: str) -> Document:
    """The document in ``text``. Raises :class:`ManifestError`."""
    return read_document(text.encode("utf-8", errors="surrogatepass"))


def _splice(text: str, before: Document, path: tuple[str, ...], value: Mapping[str, Any]) -> str:
    node, step = before.root, 2
    for depth, part in enumerate(path):
        rest = path[depth + 1 :]
        entry = node.entries.get(part)
        if entry is None or not entry.own:
            return _insert(text, node, part, _nest(rest, value), step)
        inner = entry.value
        last = not rest
        if isinstance(inner, Map) and not last and (inner.entries or _has_comment(text, entry)):
            if entry.alias:
                raise refused(before, path, f"{part!r} is an alias, and would change elsewhere too")
            if not inner.flow and not node.flow:
                step = max(1, (_column(inner) or 0) - (_column(node) or 0)) or step
            node = inner
            continue
        if isinstance(inner, Map) or is_null(inner):
            return _replace(text, node, entry, _nest(rest, value), step)
        raise refused(before, path, f"{part!r} is not a mapping")
    raise AssertionError("A path has at least one part")


def _has_comment(text: str, entry: Entry) -> bool:
    """Whether it is empty braces with a comment inside."""
    inner = entry.value
    if not (isinstance(inner, Map) and inner.flow) or entry.alias:
        return False
    return "#" in text[text.index("{", inner.spot.start) : inner.spot.end]


def refused(
    before: Document, path: tuple[str, ...], why: str, *, verb: str = "write"
) -> ManifestError:
    """The error for a place that cannot be changed without changing something else."""
    dotted = ".".join(path)
    where = before.where(path)
    return ManifestError(codes.CANNOT_EDIT.finding(f"Cannot {verb} {dotted}: {why}", where))


def _nest(path: tuple[str, ...], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value


def _column(node: Map) -> int | None:
    """The column (from 0) of a block mapping's own keys."""
    columns = [e.key.spot.column for e in node.entries.values() if e.own and e.key.spot.column]
    column = min(columns, default=node.spot.column)
    return None if column is None else column - 1


def _line_end(text: str, index: int) -> int:
    """Where the line of ``index`` ends, before its line break."""
    if index and text[index - 1] in "\r\n":  # a text block ends after its line break
        index -= 1
        return index - 1 if text[max(index - 1, 0) : index + 1] == "\r\n" else index
    match = re.compile(r"[\r\n]").search(text, index)
    return len(text) if match is None else match.start()


def _insert(text: str, parent: Map, key: str, value: Mapping[str, Any], step: int) -> str:
    if parent.flow:
        added = _flow({key: value})[1:-1]
        start = text.index("{", parent.spot.start) + 1
        if parent.last > start:
            return f"{text[: parent.last]}, {added}{text[parent.last :]}"
        gap = " " if text[start : start + 1] == "#" else ""
        return text[:start] + added + gap + text[start:]
    if parent.entries and all(_is_short(text, entry) for entry in parent.entries.values()):
        lines = [_flow({key: value})[1:-1]]
    else:
        lines = _block_lines({key: value}, step)
    column = _column(parent) or 0
    return _add_lines(text, _entries_end(text, parent, column), lines, column)


def _entries_end(text: str, node: Map, column: int) -> int:
    """Where the line of the last entry ends, or that of the last comment inside it."""
    lines = Lines(text)
    end = _line_end(text, node.last)
    after = lines.number(end) + 1
    last = after_deeper_comments(lines, after, len(lines), column)
    return end if last == after else lines.offset(last - 1) + len(lines[last - 1])


def _is_short(text: str, entry: Entry) -> bool:
    """Whether it is a mapping in braces on one line: a new neighbour is written like it."""
    node, spot = entry.value, entry.spot
    if not (isinstance(node, Map) and node.flow and entry.own):
        return False
    return not entry.alias and text[spot.start : spot.end].isprintable()


def _replace(text: str, parent: Map, entry: Entry, value: Mapping[str, Any], step: int) -> str:
    start, end = entry.spot.start, entry.spot.end
    if parent.flow:
        gap = "" if text[start - 1 : start].isspace() else " "
        return text[:start] + gap + _flow(value) + text[end:]
    inner = entry.value
    if isinstance(inner, Map) and not inner.flow and not entry.alias and value:
        indent = newline_of(text) + " " * (_column(inner) or 0)
        return text[:start] + indent.join(_block_lines(value, step)) + text[end:]
    column = (_column(parent) or 0) + step
    if not value:
        return text[:start].rstrip(" \t") + " {}" + text[end:]
    head = text[:start].rstrip(" \t")
    kept = text[end : _line_end(text, end)]
    cut = head + kept + text[_line_end(text, end) :]
    return _add_lines(cut, len(head) + len(kept), _block_lines(value, step), column)


def _add_lines(text: str, at: int, lines: list[str], column: int) -> str:
    added = "".join(newline_of(text) + " " * column + line for line in lines)
    return text[:at] + added + text[at:]


# --- rendering ------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Block mappings, flow lists, and quotes where YAML 1.1 or 1.2 would not read text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, text: str) -> yaml.Node:
        plain = resolve_plain(text) == text and text.isprintable()
        return self.represent_scalar("tag:yaml.org,2002:str", text, None if plain else '"')

    def items(self, items: Iterable[Any]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_multi_representer(str, _Dumper.text)
_Dumper.add_multi_representer(Mapping, _Dumper.represent_dict)
_Dumper.add_representer(list, _Dumper.items)
_Dumper.add_representer(tuple, _Dumper.items)


def _dump(value: Mapping[str, Any], **options: Any) -> str:
    try:
        text = yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, width=1 << 30, allow_unicode=True, **options
        )
    except yaml.representer.RepresenterError as error:
        raise TypeError(
            f"{type(error.args[1]).__name__} cannot be written into a manifest"
        ) from error
    return text.rstrip("\n")


def _block_lines(value: Mapping[str, Any], step: int) -> list[str]:
    return _dump(value, default_flow_style=False, indent=step).split("\n")


def _flow(value: Mapping[str, Any]) -> str:
    return _dump(value, default_flow_style=True)


# --- the proof ------------------------------------------------------------------------------------


def _as_read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_read(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_read(inner) for inner in value]
    return value


def _with(data: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    data = dict(data) if isinstance(data, dict) else {}
    data[path[0]] = _with(data.get(path[0]), path[1:], value)
    return data


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same type: 1, 1.0 and true are three different values here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))
