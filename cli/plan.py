"""`adapterdock plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings.errors import LockError, ManifestError, UsageError
from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    JsonOption,
    ManifestArgument,
    ModelOption,
    as_argument,
    open_manifest_argument,
)
from .render import counted

if TYPE_CHECKING:
    from ..registry.locks.plan import LockPlan

SCHEMA = "adapterdock.plan/1"
EXIT_CHANGES = 2
"""With --exit-code: the plan is not empty, as of ``terraform plan -detailed-exitcode``."""
_STYLES = {"+": "green", "~": "yellow", "-": "red"}


def plan(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="Exit 2 if there are changes, 0 if there are none, and 1 on errors.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what `lock` would change: the manifest against its lock.

    Reads these two files and nothing else: no network, no adapters. `load` refuses a lock with
    changes, and without a lock it resolves every source itself. What has moved at the sources is
    shown by `outdated` and `lock --diff`.

    Examples:

      adapterdock plan
      adapterdock plan --exit-code          # in a script: 2 means that there are changes
      adapterdock plan --json | jq '.steps[] | select(.action == "remove")'
    """
    try:
        found = _plan_of(manifest, model)
    except UsageError as error:
        if exit_code:  # 2 means that there are changes
            raise ManifestError(*error.findings) from error
        raise
    if as_json:
        steps = [step.as_dict() for step in found.steps]
        data = {
            "manifest": found.file.file,
            "locked": found.lock is not None,
            "changes": bool(found),
            **found.counts,
            "steps": steps,
            "kept": list(found.kept),
        }
        out.as_json(SCHEMA, data)
    else:
        _print(found)
    raise typer.Exit(EXIT_CHANGES if exit_code and found else 0)


def _plan_of(manifest: Path, model: str | None) -> LockPlan:
    from ..registry.locks.plan import lock_plan
    from ..registry.locks.project import lock_of
    from ..registry.locks.state import incomplete

    file = open_manifest_argument(manifest, model, None, None)
    lock = lock_of(file)
    found = lock_plan(file, lock)
    if lock is not None and not found and (wrong := incomplete(file, lock)):
        raise LockError(*wrong)
    return found


def _print(plan: LockPlan) -> None:
    from ..manifests.lockfile import lock_path

    manifest = plan.file.file or DEFAULT_MANIFEST
    name, argument = lock_path(manifest), as_argument(Path(manifest))
    if not plan:
        say(f"No changes: {name} is current")
        return
    for step in plan.steps:
        title = step.kind if step.name is None else f"{step.kind} {step.name}"
        say((f"{step.sign} {title}", _STYLES[step.sign]), f"  {step.text}")
    counts = plan.counts
    kept = f", {counted(len(plan.kept), 'adapter')} unchanged" if plan.kept else ""
    say(
        f"Plan: {counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove"
        f"{kept}"
    )
    if plan.lock is None:
        err.line(f"There is no lock yet. `adapterdock lock{argument}` writes {name}.")
    else:
        err.line(
            f"`adapterdock lock{argument}` makes these changes. Until then `load` refuses the lock."
        )
