"""`adapterdock lock`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import Severity
from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
)
from .render import print_findings, print_report

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..registry.lock_diff import Change


def lock(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    offline: OfflineOption = False,
    upgrade: Annotated[
        list[str] | None,
        typer.Option(
            "--upgrade", metavar="NAME", help="Move the pin of this adapter, or of `base`."
        ),
    ] = None,
    upgrade_all: Annotated[bool, typer.Option("--upgrade-all", help="Move every pin.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether the lock is current (for CI).")
    ] = False,
    show_diff: Annotated[
        bool,
        typer.Option("--diff", help="Only show what moving the pins would change; write nothing."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pin every source to bytes: resolve, check, fetch the adapters, and write NAME.lock.

    Pins of entries that did not change are kept; --upgrade moves one.

    Examples:

      adapterdock lock

      adapterdock lock --check            # in CI: exit 1 when missing, stale or broken

      adapterdock lock --diff             # what would move

      adapterdock lock --upgrade tone
    """
    # Here, so that no other command waits for what this one needs.
    from ..manifests.lockfile import lock_path, write_lock
    from ..registry.lock import make_lock
    from ..registry.lock_diff import diff
    from ..registry.project import lock_of, open_manifest, policies_in_force
    from ..registry.resolve import Access
    from ..registry.store import Store
    from ..registry.validate import check_lock
    from .progress import rich_progress

    if check:
        report = check_lock(Path(manifest), policy=policy, offline=offline)
        if as_json:
            say(json.dumps(report.as_dict(), indent=2))
        else:
            print_report(report, out())
        raise typer.Exit(report.exit_status)
    file = open_manifest(Path(manifest), model=model, dtype=dtype)
    old = lock_of(file)
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    with rich_progress() as progress:
        new, resolution = make_lock(
            file,
            old,
            access=access,
            store=Store.default(),
            upgrade=upgrade or (),
            upgrade_all=upgrade_all or (show_diff and not upgrade),
            accept=accept or (),
            progress=progress,
        )
    print_findings((f for f in resolution.findings if f.severity is not Severity.ERROR), err())
    path = lock_path(manifest)
    changes = diff(old, new)
    if not show_diff and new != old:
        write_lock(new, path)
    wrote = not show_diff and new != old
    _print_changes(changes, path, new, first=old is None, wrote=wrote, as_json=as_json)


def _print_changes(
    changes: list[Change], path: Path, new: Lock, *, first: bool, wrote: bool, as_json: bool
) -> None:
    if as_json:
        rows = [{"path": c.path, "old": c.old, "new": c.new} for c in changes]
        say(json.dumps({"lock": str(path), "wrote": wrote, "changes": rows}, indent=2))
        return
    for change in changes if not first else ():
        say(str(change))
    pinned = [name for name, entry in new.adapters.items() if not entry.mutable]
    if wrote:
        for name in pinned if first else ():
            say(f"pinned {name}: {new.adapters[name].source} {new.adapters[name].digest}")
        say(f"wrote {path}: {len(pinned)} adapters pinned" + (", and the base" if new.base else ""))
    elif changes:
        say(f"{len(changes)} changes; nothing was written")
    else:
        say(f"{path} is current")
