"""What `add` and `remove` share: showing an edit of the manifest, and locking it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Styled, err, out, say
from .options import DEFAULT_MANIFEST
from .progress import shown_progress
from .render import print_findings

if TYPE_CHECKING:
    from ..registry.editing import Edit

SCHEMA = "adapterdock.edit/1"
_STYLES = {"+": "green", "-": "red", "@": "dim"}

FileOption = Annotated[
    Path,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="The manifest to change (default: adapters.yaml).",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Write nothing; show how the manifest would change. Uses no network."
    ),
]
DEFAULT = DEFAULT_MANIFEST


def carry_out(
    edit: Edit,
    done: str,
    *,
    policy: Path | None,
    accept: Iterable[str],
    offline: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Lock and write the edit, or only show it. ``done`` says what it does, as a sentence."""
    before, after = edit.text()
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), str(edit.path), str(edit.path), lineterm=""
        )
    )
    if dry_run:
        if as_json:
            _print_json(edit, lines, False, [], [f.as_dict() for f in edit.file.warnings])
            return
        for line in lines:
            style = "bold" if line.startswith(("+++", "---")) else _STYLES.get(line[:1], "")
            parts: list[Styled] = [(line, style)] if style else [line]
            say(*parts)
        print_findings(edit.file.warnings, err)
        err.line("Nothing was written")
        return
    from ..manifests.findings.finding import Severity
    from ..manifests.lockfile import lock_path
    from ..registry.access.session import session_for
    from ..registry.editing import apply
    from ..registry.locks.diff import diff
    from .lock_changes import print_changes

    with shown_progress(f"Locking {edit.path}") as progress:
        session = session_for(
            edit.file, policy=policy, accept=accept, offline=offline, progress=progress
        )
        locked = apply(edit, session)
    changes = diff(locked.old, locked.new)
    found = (*edit.file.warnings, *locked.resolution.findings)
    notes = [finding for finding in found if finding.severity is not Severity.ERROR]
    if as_json:
        rows = [{"path": c.path, "old": c.old, "new": c.new} for c in changes]
        _print_json(edit, lines, True, rows, [f.as_dict() for f in notes])
        return
    print_findings(notes, err, locked.new.accepted)
    print_changes(changes, locked.old, locked.new)
    err.line(f"{done}, and wrote {lock_path(edit.path)}")


def _print_json(
    edit: Edit,
    lines: list[str],
    wrote: bool,
    changes: list[dict[str, Any]],
    findings: list[dict[str, Any]],
) -> None:
    from ..manifests.lockfile import lock_path

    data = {
        "manifest": str(edit.path),
        "lock": str(lock_path(edit.path)),
        "wrote": wrote,
        "diff": lines,
        "changes": changes,
        "findings": findings,
    }
    out.as_json(SCHEMA, data)
