"""How findings, reports and tables look, on a terminal of any width and elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..manifests.bounds import MANIFEST_BYTES
from ..manifests.findings import language
from ..manifests.findings.finding import Finding, Report, Severity, refused
from ..manifests.findings.said import Row, clean, group_rows, grouped
from ..manifests.findings.said import counted as counted
from ..manifests.findings.said import verdict_of as verdict_of
from ..manifests.reading.bounded_file import read_at_most
from ..manifests.reading.likeness import reads_like_ours
from .console import Printer
from .hints import completed
from .verbosity import is_quiet

if TYPE_CHECKING:
    from ..registry.verdicts import Verdict

_SECRETS = frozenset({language.SECRET.id, language.SECRET_OPTION.id})

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
    findings = completed(findings)
    if is_quiet():
        findings = refused(findings, frozenset(accepted))
    order = list(Severity)
    groups = sorted(grouped(findings), key=lambda g: order.index(g[0].severity))
    hidden = any(g[0].code in _SECRETS for g in groups)
    sources = Excerpts(hidden)
    with printer.heard():
        for group in groups:
            rows = group_rows(
                group, frozenset(accepted), lambda one: _excerpt(one, printer, sources)
            )
            for parts, indent in rows:
                printer.line(*parts, indent=indent)


def print_report(report: Report, printer: Printer) -> None:
    """Print the findings and a closing line with the verdict; with --quiet only what is wrong."""
    print_findings(report.findings, printer, report.accepted)
    if is_quiet():
        return
    print_verdict(report, report.subject, printer)
    if not report.ok:
        first = min(f.code for f in (*report.errors, *report.unchecked))
        printer.line(f"Learn more: adapterdock explain {first}")


def print_verdict(report: Report, title: str, printer: Printer) -> None:
    """Print one line: whether the manifest fits. With --quiet only if it does not."""
    if is_quiet() and report.ok:
        return
    printer.line(f"{title}: ", (verdict_of(report), "green" if report.ok else "bold red"))


def words_of(verdict: Verdict) -> str:
    """``fits``, ``does not fit (AD304)``, ``unchecked (AD361)``."""
    words = {True: "fits", False: "does not fit", None: "unchecked"}[verdict.fits]
    return f"{words} ({', '.join(verdict.codes)})" if verdict.codes else words


class Excerpts:
    """The lines of manifests that findings point to, and of no other file. None with ``hidden``,
    because the files contain a secret."""

    def __init__(self, hidden: bool) -> None:
        self._hidden: bool = hidden
        self._files: dict[str, list[str]] = {}

    def line(self, finding: Finding, room: int) -> str | None:
        """The line of a manifest that a finding is about, if it fits into ``room`` columns."""
        spot = finding.where
        if self._hidden or spot.line is None or spot.column is None or spot.file is None:
            return None
        if spot.file not in self._files:
            try:
                content = read_at_most(spot.file, MANIFEST_BYTES, regular=True)
                text = content.decode("utf-8")
            except (OSError, ValueError):
                text = ""
            shown = text.removeprefix("\ufeff") if reads_like_ours(text) else ""
            self._files[spot.file] = shown.splitlines()
        lines = self._files[spot.file]
        if not 0 < spot.line <= len(lines):
            return None
        line = lines[spot.line - 1].replace("\t", " ").rstrip()
        return line if line and len(line) <= room and line.isprintable() else None


def _excerpt(finding: Finding, printer: Printer, sources: Excerpts) -> Iterator[Row]:
    number = str(finding.where.line)
    gutter = len(number) + 4
    line = sources.line(finding, min(LONGEST_EXCERPT, (printer.width or 999) - gutter - 2))
    if line is None or finding.where.column is None:
        return
    yield ((f"{number} | ", "dim"), line), 2
    blank = " " * (min(finding.where.column, len(line) + 1) - 1)
    yield ((f"{' ' * len(number)} | ", "dim"), blank, ("^", "bold")), 2


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], printer: Printer) -> None:
    """Print a table whose last column wraps; on a narrow terminal blocks of ``column: value``;
    without a terminal tab-separated fields, with a line of names."""
    rows = [tuple(clean(value).replace("\n", " ") for value in row) for row in rows]
    if not printer.terminal:
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
    return f"{kind}:{figures[:12]}" if printer.terminal and kind and len(figures) > 16 else digest


def human_bytes(size: int) -> str:
    """``9.4 MB``: decimal units, one decimal place."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
