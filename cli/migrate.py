"""`adapterdock migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import EXIT_WRONG
from .console import err, out
from .options import JsonOption
from .render import counted, print_findings

if TYPE_CHECKING:
    from ..registry.migrate import Change, Migration

SCHEMA = "adapterdock.migrate/1"


def migrate(
    scripts: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCRIPT", help="Python files, or folders of them.", show_default=False
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what changes in scripts that use PEFT.

    Prints each line that changes, what to write in its place, and why. Nothing is run and no file
    is changed. Where a script does not show what a variable is, the line says "cannot tell". Exit
    status 1 if a script is not valid Python.

    Examples:

      adapterdock migrate train.py
      adapterdock migrate src/ --json | jq -r '.changes[].ours'
    """
    from ..registry.migrate import migrate as look
    from ..registry.migrate import rows

    found = look(scripts)
    if as_json:
        out.as_json(
            SCHEMA,
            {
                "scripts": found.scripts,
                "unchanged": found.unchanged,
                "changes": rows(found.changes),
                "findings": [finding.as_dict() for finding in found.findings],
            },
        )
    else:
        for change in found.changes:
            _print(change)
        print_findings(found.findings, err)
        _print_total(found)
    if found.findings:
        raise typer.Exit(EXIT_WRONG)


def _print(change: Change) -> None:
    out.line((f"{change.file}:{change.line}:{change.column}", "bold"), f" {change.theirs}")
    ours = (change.ours, "green") if change.ours else ("remove it", "yellow")
    if change.ours or change.certain:
        out.line("-> ", ours, indent=2, hang=3)
    if change.note:
        out.line(change.note, indent=5, hang=0)


def _print_total(found: Migration) -> None:
    scripts = counted(found.scripts, "script")
    if found.findings:
        scripts = f"{scripts}, {len(found.findings)} of them unreadable"
    if not found.changes and not found.unchanged:
        err.line(f"{scripts}: no call of PEFT's or transformers' adapters found")
        return
    unsure = sum(not change.certain for change in found.changes)
    also = f", {unsure} of them uncertain" if unsure else ""
    places = counted(len(found.changes), "place")
    stay = "stays as it is" if found.unchanged == 1 else "stay as they are"
    err.line(f"{scripts}: {places} to change{also}; {found.unchanged} {stay}")
