"""Findings and reports as lines of text, for a terminal, a log or ``print``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from .verdicts import what_is_wrong

Finding: TypeAlias = Any
Report: TypeAlias = Any
Where: TypeAlias = Any
"""Those of ``finding.py``, which shows itself with this file and so cannot be imported here."""

Part = str | tuple[str, str]
"""Text, or text and its style (``bold red``)."""
Row = tuple[tuple[Part, ...], int]
"""One line: its parts, and by how many columns it is indented."""
Excerpt = Callable[[Finding], Iterable[Row]]
"""The line of a file that a finding is about."""

STYLES = {"error": "bold red", "unchecked": "bold magenta", "warning": "yellow"}
SHOWN_PLACES = 5
"""How many places of one warning are listed (of an error, all)."""


def clean(text: str) -> str:
    """``text`` with control characters escaped, except line breaks: names and messages may come
    from a stranger's file, and must not control the terminal, or the order of a page's letters."""
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings grouped by their text, in order.

    Texts that differ only in the name of the adapter that they are about are the same.
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        texts = [finding.message, finding.found, finding.expected, finding.hint]
        path = finding.where.path
        if len(path) > 1 and path[0] == "adapters":
            name = re.compile(rf"(?<![\w.-]){re.escape(str(path[1]))}(?![\w.-])")
            texts = [text and name.sub("...", text) for text in texts]
        groups.setdefault((finding.code, finding.severity, *texts), []).append(finding)
    return list(groups.values())


def group_rows(
    group: Sequence[Finding], accepted: Collection[str] = (), excerpt: Excerpt = lambda _: ()
) -> Iterator[Row]:
    """Findings with the same text: where, what, found, expected, what to do."""
    first = group[0]
    alone = len(group) == 1
    head: list[Part] = []
    place = _place(first.where)
    if place:
        head.append((f"{place}: ", "bold"))
    label = f"{first.severity.value} {first.code} {first.name}"
    if first.severity.value == "unchecked" and first.code in accepted:
        label += " (accepted)"
    head.append((label, STYLES[first.severity.value]))
    others = len(group) - 1
    alike = all(f.message == first.message for f in group)
    head.append(f": {first.message}" + ("" if alike else f" (and {others} more like it)"))
    yield tuple(head), 0
    yield from excerpt(first)
    facts = [("at", first.where.dotted)] if alone else []
    facts += [("found", first.found), ("expected", first.expected)]
    for name, value in facts:
        if value:
            yield ((f"{name}: ", "dim"), value), 2
    if not alone:
        yield from _places(group)
    if first.hint:
        yield (("do: ", "dim"), first.hint), 2


def verdict_of(report: Report) -> str:
    """``fits (2 adapters)``, ``does not fit: 1 error``."""
    errors, unchecked = report.errors, report.unchecked
    all_unchecked = sum(f.severity.value == "unchecked" for f in report.findings)
    accepted = all_unchecked - len(unchecked)
    could_not_run = f"{counted(len(unchecked), 'check')} could not run"
    also = [
        (accepted, f"{counted(accepted, 'unchecked finding')} accepted"),
        (len(report.warnings), counted(len(report.warnings), "warning")),
    ]
    more = [text for number, text in also if number]
    if report.ok:
        adapters = counted(len(report.adapters), "adapter") if report.adapters else "no adapters"
        return f"fits ({', '.join([adapters, *more])})"
    if errors:
        counts = [counted(len(errors), "error"), *([could_not_run] if unchecked else []), *more]
        return f"{what_is_wrong(f.code for f in errors)}: {', '.join(counts)}"
    return ", ".join([f"{could_not_run} (exit 3)", *more])


def report_rows(report: Report) -> Iterator[Row]:
    """All findings, errors first, and the verdict."""
    order = list(STYLES)
    groups = grouped(report.findings)
    for group in sorted(groups, key=lambda group: order.index(group[0].severity.value)):
        yield from group_rows(group, report.accepted)
    style = "green" if report.ok else "bold red"
    yield (f"{report.subject}: ", (verdict_of(report), style)), 0


def as_text(rows: Iterable[Row]) -> str:
    """The lines as plain text."""
    return "\n".join(
        " " * indent + clean("".join(p if isinstance(p, str) else p[0] for p in parts))
        for parts, indent in rows
    )


def _places(group: Sequence[Finding]) -> Iterator[Row]:
    everything = group[0].severity.value != "warning" or len(group) <= SHOWN_PLACES + 1
    shown = group if everything else group[:SHOWN_PLACES]
    yield ((f"at {len(group)} places:", "dim"),), 2
    for finding in shown:
        parts = [p for p in (_place(finding.where), finding.where.dotted) if p]
        yield (" ".join(parts) or "(no place)",), 4
    if len(shown) < len(group):
        yield (f"and {len(group) - len(shown)} more",), 4


def _place(where: Where) -> str:
    return ":".join(str(p) for p in (where.file, where.line, where.column) if p is not None)
