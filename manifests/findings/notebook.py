"""HTML for notebooks: escaped, without assets, and readable on light and dark pages.

Text has the page's own colour. Only badges have colours of their own, with white text on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .said import Finding, Report, clean, grouped, verdict_of

_COLOURS = {
    "error": "#b42318",
    "unchecked": "#7a3ea1",
    "warning": "#8a5a00",
    "ok": "#1a7038",
    "plain": "#57606a",
    "+": "#1a7038",
    "~": "#8a5a00",
    "-": "#b42318",
}
_LINE = "1px solid rgba(127,127,127,.4)"
_CELL = f"text-align:left;padding:.2em .8em .2em 0;vertical-align:top;border-bottom:{_LINE}"


def text(value: object) -> str:
    """``value`` as HTML that shows just that."""
    return escape(clean(str(value))).replace("\n", "<br>")


def badge(label: str, kind: str = "plain") -> str:
    """A short label in the colour of ``kind``."""
    style = f"background:{_COLOURS[kind]};color:#fff;border-radius:.3em;padding:.05em .45em"
    return f'<span style="{style};white-space:nowrap">{text(label)}</span>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML already."""
    head = "".join(f'<th style="{_CELL}">{text(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def frame(*parts: str) -> str:
    """The parts one below the other."""
    inner = "".join(f'<div style="margin:.3em 0">{part}</div>' for part in parts if part)
    return f'<div style="color:inherit;background:transparent;overflow-wrap:anywhere">{inner}</div>'


def report_html(report: Report) -> str:
    """A report: its verdict, its findings, its adapters."""
    kind = "ok" if report.ok else "error" if report.errors else "unchecked"
    verdict = f"{badge(verdict_of(report), kind)} <code>{text(report.subject)}</code>"
    order = list(_COLOURS)
    groups = sorted(grouped(report.findings), key=lambda g: order.index(g[0].severity.value))
    facts = [
        [f"<code>{text(name)}</code>", text(of.get("method") or ""), text(of.get("rank") or "")]
        for name, of in report.adapters.items()
    ]
    adapters = table(("adapter", "method", "rank"), facts) if facts else ""
    return frame(verdict, *(_group(group) for group in groups), adapters)


def lines_html(lines: Iterable[str]) -> str:
    """Lines of a plan, each with a badge for the sign that it starts with."""
    rows: list[str] = []
    for line in lines:
        sign, _, rest = line.partition(" ")
        signed = sign in ("+", "~", "-")
        rows.append(f"{badge(sign, sign)} <code>{text(rest)}</code>" if signed else text(line))
    return frame(*rows)


def _group(group: Sequence[Finding]) -> str:
    first = group[0]
    alike = all(one.message == first.message for one in group)
    message = first.message + ("" if alike else f" (and {len(group) - 1} more like it)")
    label = badge(f"{first.severity.value} {first.code}", first.severity.value)
    places = "<br>".join(f"<code>{text(one.where)}</code>" for one in group if str(one.where))
    facts = [("found", first.found), ("expected", first.expected), ("do", first.hint)]
    more = "".join(f"<br>{name}: {text(value)}" for name, value in facts if value)
    return f"{label} {text(message)}" + (f"<br>{places}" if places else "") + more
