"""What the list of adapters shows, and by what it can be filtered. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...registry.records.entry import EntryMethod
from .facts import Adapter, Key
from .graph import cut

UNKNOWN = "not stated"
MOST_CHOICES = 200
"""Values of one facet: the most frequent ones."""
ABOUT = 240
"""Characters of a description in the list."""


@dataclass(frozen=True)
class Choice:
    """One value of a facet. Rows that have it carry its ``token``."""

    text: str
    token: str
    count: int


@dataclass(frozen=True)
class Facet:
    """Something to filter by; ``key`` is its name in an address."""

    key: str
    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Row:
    """One adapter in the list. ``more`` is text that is searched and not shown."""

    page: str
    name: str
    shown: str | None
    marks: tuple[str, ...]
    aliases: tuple[str, ...]
    about: str
    method: str
    rank: int
    base: str | None
    licence: str | None
    owner: str | None
    group: str | None
    created: str
    more: str
    tokens: str


_FACETS: tuple[tuple[str, str, Callable[[Adapter], Iterable[str]]], ...] = (
    ("method", "Method", lambda one: [method_name(one.method) or UNKNOWN]),
    ("base", "Base", lambda one: [one.base or UNKNOWN]),
    ("licence", "Licence", lambda one: [one.licence or UNKNOWN]),
    ("owner", "Owner", lambda one: [one.owner or UNKNOWN]),
    ("tag", "Tag", lambda one: dict.fromkeys(one.tags)),
    ("mark", "Mark", lambda one: dict.fromkeys(one.marks)),
    ("signed", "Signatures", lambda one: [_signed(one)] if one.origin == "registry" else []),
    ("group", "From", lambda one: [one.group]),
)


def facets_of(adapters: Sequence[Adapter]) -> tuple[Facet, ...]:
    """What the adapters can be filtered by: facets in which they differ, the frequent values
    first."""
    found: list[Facet] = []
    for key, name, values in _FACETS:
        counts = Counter(value for one in adapters for value in values(one))
        counted = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].casefold(), pair[0]))
        if len(counted) < 2 and key not in ("tag", "mark"):
            continue
        shown = counted[:MOST_CHOICES]
        choices = (Choice(text, f"{key}{n}", count) for n, (text, count) in enumerate(shown))
        if counted:
            found.append(Facet(key, name, tuple(choices)))
    return tuple(found)


def rows_of(
    adapters: Iterable[Adapter], facets: Sequence[Facet], pages: Mapping[Key, str]
) -> list[Row]:
    """The rows of the list, in the order of the adapters."""
    values = {key: asked for key, _, asked in _FACETS}
    tokens = {(facet.key, c.text): c.token for facet in facets for c in facet.choices}
    named = {facet.key for facet in facets}
    rows: list[Row] = []
    for one in adapters:
        pairs = ((key, value) for key in named for value in values[key](one))
        mine = sorted(tokens[pair] for pair in pairs if pair in tokens)
        rows.append(
            Row(
                page=pages[one.key],
                name=one.name,
                shown=one.shown,
                marks=one.marks,
                aliases=tuple(a.name for a in one.aliases if a.version == one.shown and one.shown),
                about=cut_end(" ".join((one.description or "").split()), ABOUT),
                method=method_name(one.method) or "unknown method",
                rank=0 if one.method is None else one.method.rank,
                base=one.base,
                licence=one.licence,
                owner=one.owner,
                group=one.group if "group" in named else None,
                created=one.created or "",
                more=cut(" ".join((*one.tags, *one.base_names)), 2000),
                tokens=" ".join(mine),
            )
        )
    return rows


def cut_end(text: str, longest: int) -> str:
    """``text`` without its end, where it is long."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def method_name(method: EntryMethod | None) -> str:
    """``LORA``, or ``LORA (DoRA)``."""
    if method is None:
        return ""
    kinds = [name for name, used in (("rsLoRA", method.rslora), ("DoRA", method.dora)) if used]
    return f"{method.peft_type} ({', '.join(kinds)})" if kinds else method.peft_type


def method_text(method: EntryMethod | None) -> str:
    """``LORA, rank 8``."""
    if method is None:
        return "unknown"
    return ", ".join(part for part in (method_name(method), rank_text(method)) if part)


def rank_text(method: EntryMethod) -> str:
    """``rank 8``, or ``rank 4 to 8``."""
    ranks = sorted({method.lowest_rank, method.rank} - {0})
    return f"rank {' to '.join(map(str, ranks))}" if ranks else ""


def _signed(one: Adapter) -> str:
    shown = next((version for version in one.versions if version.version == one.shown), None)
    if shown is None or shown.signatures is None:
        return "unknown"
    return "signed" if any(signature.keys for signature in shown.signatures) else "not signed"
