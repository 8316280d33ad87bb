"""How findings, reports and tables look, on a terminal of any width and off it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..manifests.findings import Finding, Report, Severity

_STYLE = {
    Severity.ERROR: "bold red",
    Severity.UNCHECKED: "bold magenta",
    Severity.WARNING: "yellow",
}


def print_findings(findings: Iterable[Finding], console: Console) -> None:
    """Each finding: where, what, found, expected, what to do. Errors first."""
    order = list(Severity)
    for finding in sorted(findings, key=lambda f: order.index(f.severity)):
        head = Text()
        spot = finding.where
        place = ":".join(str(p) for p in (spot.file, spot.line, spot.column) if p is not None)
        if place:
            head.append(f"{place}: ", style="bold")
        head.append(f"{finding.severity.value} {finding.code}", style=_STYLE[finding.severity])
        head.append(f" {finding.message}")
        _print(console, head, 0)
        for label, value in (
            ("at", spot.dotted),
            ("found", finding.found),
            ("expected", finding.expected),
            ("do", finding.hint),
        ):
            if value:
                _print(console, Text(f"{label}: {value}"), 2)


def print_report(report: Report, console: Console) -> None:
    """The findings and a closing line with the verdict."""
    print_findings(report.findings, console)
    errors, unchecked, warnings = report.errors, report.unchecked, report.warnings
    counts = [
        _count(len(errors), "error"),
        _count(len(unchecked), "thing", "unchecked"),
        _count(len(warnings), "warning"),
    ]
    text = ", ".join(c for c in counts if c)
    adapters = _count(len(report.adapters), "adapter")
    if report.ok:
        line = f"{report.subject}: fits ({adapters or 'no adapters'}{', ' + text if text else ''})"
        _print(console, Text(line, style="green"), 0)
    else:
        verdict = "does not fit" if errors else "unchecked, which is not a pass"
        _print(console, Text(f"{report.subject}: {verdict} ({text})", style="bold red"), 0)
        codes = sorted({f.code for f in (*errors, *unchecked)})
        _print(console, Text(f"learn more: adapterdock explain {codes[0]}"), 0)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """A table on a wide terminal; blocks of `column: value` where it would not fit; tabs off it."""
    rows = [tuple(map(str, row)) for row in rows]
    if not console.is_terminal:
        for row in (tuple(columns), *rows):
            print("\t".join(row), file=console.file)
        return
    wanted = sum(max(len(r[i]) for r in [columns, *rows]) + 2 for i in range(len(columns)))
    if wanted <= console.width:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    for row in rows:
        _print(console, Text(row[0], style="bold"), 0)
        for column, value in zip(columns[1:], row[1:], strict=True):
            _print(console, Text(f"{column}: {value}"), 2)


def human_bytes(size: int) -> str:
    """``9.4 MB``: decimal units, one place."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _print(console: Console, text: Text, indent: int) -> None:
    if console.is_terminal:
        text.overflow = "fold"
        console.print(Padding(text, (0, 0, 0, indent)))
    else:
        print(" " * indent + text.plain, file=console.file)


def _count(number: int, noun: str, suffix: str = "") -> str:
    if not number:
        return ""
    plural = noun if number == 1 else f"{noun}s"
    return f"{number} {plural}{' ' + suffix if suffix else ''}"
