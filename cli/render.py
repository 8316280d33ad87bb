"""How findings, reports and tables look, on a terminal of any width and elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..manifests.findings import language
from ..manifests.findings.finding import Finding, Report, Severity, Where
from ..manifests.reading.likeness import reads_like_ours
from .console import Printer, Styled, clean

_STYLE = {
    Severity.ERROR: "bold red",
    Severity.UNCHECKED: "bold magenta",
    Severity.WARNING: "yellow",
}
_SECRETS = frozenset({language.SECRET.id, language.SECRET_OPTION.id})

SHOWN_PLACES = 5
"""How many places of one warning are listed (of an error, all)."""
LONGEST_EXCERPT = 160
"""Source lines longer than this, or wider than the terminal, are not shown."""
NARROWEST_CELL = 24
"""Smallest width of a table's last column; narrower terminals get blocks."""


def print_findings(
    findings: Iterable[Finding], printer: Printer, accepted: Iterable[str] = ()
) -> None:
    """Print each finding: where, what, found, expected, what to do. Errors first.

    A finding that several places share is printed once, with the places below it.
    """
    order = list(Severity)
    groups = sorted(grouped(findings), key=lambda g: order.index(g[0].severity))
    hidden = any(g[0].code in _SECRETS for g in groups)
    sources = Excerpts(hidden)
    for group in groups:
        _print_group(group, printer, sources, frozenset(accepted))


def print_report(report: Report, printer: Printer) -> None:
    """Print the findings and a closing line with the verdict."""
    print_findings(report.findings, printer, report.accepted)
    errors, unchecked = report.errors, report.unchecked
    accepted = sum(f.severity is Severity.UNCHECKED for f in report.findings) - len(unchecked)
    could_not_run = f"{counted(len(unchecked), 'check')} could not run"
    also = [
        (accepted, f"{counted(accepted, 'unchecked finding')} accepted"),
        (len(report.warnings), counted(len(report.warnings), "warning")),
    ]
    more = [text for number, text in also if number]
    if report.ok:
        adapters = counted(len(report.adapters), "adapter") if report.adapters else "no adapters"
        printer.line(f"{report.subject}: ", (f"fits ({', '.join([adapters, *more])})", "green"))
        return
    if errors:
        invalid = all(f.code.startswith("AD1") for f in errors)
        counts = [counted(len(errors), "error"), *([could_not_run] if unchecked else []), *more]
        verdict = f"{'invalid manifest' if invalid else 'does not fit'}: {', '.join(counts)}"
    else:
        verdict = ", ".join([f"{could_not_run} (exit 3)", *more])
    printer.line(f"{report.subject}: ", (verdict, "bold red"))
    first = min(f.code for f in (*errors, *unchecked))
    printer.line(f"Learn more: adapterdock explain {first}")


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


class Excerpts:
    """The lines of manifests that findings point to, and of no other file. None with ``hidden``,
    because the files contain a secret."""

    def __init__(self, hidden: bool) -> None:
        self._hidden: bool = hidden
        self._files: dict[str, list[str]] = {}

    def line(self, finding: Finding, room: int) -> str | None:
        """The line of a finding about the manifest language, if it fits into ``room`` columns."""
        spot = finding.where
        if self._hidden or spot.line is None or spot.column is None or spot.file is None:
            return None
        if not finding.code.startswith("AD1"):
            return None
        if spot.file not in self._files:
            try:
                text = Path(spot.file).read_bytes().decode("utf-8")
            except (OSError, ValueError):
                text = ""
            shown = text.removeprefix("\ufeff") if reads_like_ours(text) else ""
            self._files[spot.file] = shown.splitlines()
        lines = self._files[spot.file]
        if not 0 < spot.line <= len(lines):
            return None
        line = lines[spot.line - 1].replace("\t", " ").rstrip()
        return line if line and len(line) <= room and line.isprintable() else None


def _print_group(
    group: Sequence[Finding], printer: Printer, sources: Excerpts, accepted: frozenset[str]
) -> None:
    first = group[0]
    alone = len(group) == 1
    head: list[Styled] = []
    place = _place(first.where)
    if place and alone:
        head.append((f"{place}: ", "bold"))
    label = f"{first.severity.value} {first.code} {first.name}"
    if first.severity is Severity.UNCHECKED and first.code in accepted:
        label += " (accepted)"
    head.append((label, _STYLE[first.severity]))
    others = len(group) - 1
    alike = all(f.message == first.message for f in group)
    head.append(f": {first.message}" + ("" if alike else f" (and {others} more like it)"))
    printer.line(*head)
    if alone:
        _print_excerpt(first, printer, sources)
    facts = [("at", first.where.dotted)] if alone else []
    facts += [("found", first.found), ("expected", first.expected)]
    for name, value in facts:
        if value:
            printer.line((f"{name}: ", "dim"), value, indent=2)
    if not alone:
        _print_places(group, printer)
    if first.hint:
        printer.line(("do: ", "dim"), first.hint, indent=2)


def _print_places(group: Sequence[Finding], printer: Printer) -> None:
    everything = group[0].severity is not Severity.WARNING or len(group) <= SHOWN_PLACES + 1
    shown = group if everything else group[:SHOWN_PLACES]
    printer.line((f"at {len(group)} places:", "dim"), indent=2)
    for finding in shown:
        parts = [p for p in (_place(finding.where), finding.where.dotted) if p]
        printer.line(" ".join(parts) or "(no place)", indent=4)
    if len(shown) < len(group):
        printer.line(f"and {len(group) - len(shown)} more", indent=4)


def _print_excerpt(finding: Finding, printer: Printer, sources: Excerpts) -> None:
    number = str(finding.where.line)
    gutter = len(number) + 4
    line = sources.line(finding, min(LONGEST_EXCERPT, (printer.width or 999) - gutter - 2))
    if line is None or finding.where.column is None:
        return
    printer.line((f"{number} | ", "dim"), line, indent=2)
    blank = " " * (min(finding.where.column, len(line) + 1) - 1)
    printer.line((f"{' ' * len(number)} | ", "dim"), blank, ("^", "bold"), indent=2)


def _place(where: Where) -> str:
    return ":".join(str(p) for p in (where.file, where.line, where.column) if p is not None)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], printer: Printer) -> None:
    """Print a table whose last column wraps; on a narrow terminal blocks of ``column: value``;
    without a terminal tab-separated fields, with a line of names."""
    rows = [tuple(clean(value).replace("\n", " ") for value in row) for row in rows]
    if not printer.fancy:
        for row in (tuple(columns), *rows):
            print("\t".join(row), file=printer.stream)
        return
    from rich.cells import cell_len

    widths = [max(cell_len(r[i]) for r in [columns, *rows]) for i in range(len(columns))]
    room = printer.console.width - sum(width + 2 for width in widths[:-1])
    if room < min(widths[-1], NARROWEST_CELL):
        for row in rows:
            printer.line((row[0], "bold"))
            for column, value in zip(columns[1:], row[1:], strict=True):
                if value:
                    printer.line((f"{column}: ", "dim"), value, indent=2)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, width in zip(columns[:-1], widths[:-1], strict=True):
        table.add_column(column, no_wrap=True, min_width=width)
    table.add_column(columns[-1], overflow="fold", max_width=room)
    for row in rows:
        table.add_row(*map(Text, row))
    printer.console.print(table)


def short_digest(digest: str | None, printer: Printer) -> str:
    """The first twelve digits of a digest on a terminal, all of it elsewhere."""
    if digest is None:
        return ""
    kind, _, figures = digest.rpartition(":")
    return f"{kind}:{figures[:12]}" if printer.fancy and kind and len(figures) > 16 else digest


def human_bytes(size: int) -> str:
    """``9.4 MB``: decimal units, one decimal place."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
