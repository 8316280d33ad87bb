"""`adapterdock lock`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Severity
from .console import Styled, err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    accepted_codes,
    check_arguments,
    complete_adapter,
    manifest_argument,
)
from .progress import shown_progress
from .render import print_findings, print_report, print_table, short_digest

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..registry.locks.diff import Change

SCHEMA = "adapterdock.lock/1"

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


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
            "--upgrade",
            metavar="NAME",
            help="Move the pin of this adapter, or of `base` (repeat it for more).",
            autocompletion=complete_adapter,
        ),
    ] = None,
    upgrade_all: Annotated[bool, typer.Option("--upgrade-all", help="Move every pin.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit 1 unless the lock is there and current."),
    ] = False,
    show_diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Write nothing; show what moving the pins (all, or those of --upgrade) changes.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pin every source to its bytes, in NAME.lock.

    All that `validate` checks must hold. The adapters are fetched, since a lock holds their
    digests; of a remote base only what is small is. Pins of entries that did not change stay where
    they are. Commit the lock beside its manifest: from then on everybody loads the same bytes.

    Examples:

      adapterdock lock
      adapterdock lock --check            # in CI
      adapterdock lock --diff             # has anything moved upstream?
      adapterdock lock --upgrade tone     # take the new one, and review the diff
      adapterdock lock --accept AD364     # recorded in the lock
    """
    path = manifest_argument(manifest)
    check_arguments(model, dtype, policy)
    if check:
        others = {
            "--diff": show_diff,
            "--upgrade": upgrade,
            "--upgrade-all": upgrade_all,
            "--accept": accept,
        }
        _refuse_beside("--check", others)
        _check(path, model, dtype, policy, offline, as_json)
    if upgrade_all:
        _refuse_beside("--upgrade-all", {"--upgrade": upgrade})

    from ..manifests.lockfile import lock_path, write_lock
    from ..registry.lock import make_lock
    from ..registry.locks.diff import diff
    from ..registry.locks.project import lock_of, open_manifest
    from ..registry.session import session_for

    accepted = accepted_codes(accept)
    file = open_manifest(path, model=model, dtype=dtype)
    old = lock_of(file)
    with shown_progress(f"locking {path}") as progress:
        new, resolution = make_lock(
            file,
            old,
            session_for(file, policy=policy, accept=accepted, offline=offline, progress=progress),
            upgrade=upgrade or (),
            upgrade_all=upgrade_all or (show_diff and not upgrade),
        )
    notes = [f for f in resolution.findings if f.severity is not Severity.ERROR]
    wrote = not show_diff and new != old
    if wrote:
        write_lock(new, lock_path(path))
    changes = diff(old, new)
    if as_json:
        data = {
            "lock": str(lock_path(path)),
            "wrote": wrote,
            "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
            "accepted": list(new.accepted),
            "findings": [f.as_dict() for f in notes],
        }
        out.as_json(SCHEMA, data)
        return
    print_findings(notes, err, new.accepted)
    _print(changes, old, new)
    _conclude(lock_path(path), new, bool(changes), wrote=wrote)


def _check(
    path: Path,
    model: str | None,
    dtype: str | None,
    policy: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    from ..registry.locks.project import open_manifest
    from ..registry.validate import check_lock

    file = open_manifest(path, model=model, dtype=dtype)
    report = check_lock(file, policy=policy, offline=offline)
    if as_json:
        data = report.as_dict()
        out.as_json(data.pop("schema"), data)
    else:
        print_report(report, out)
    raise typer.Exit(report.exit_status)


def _refuse_beside(option: str, others: Mapping[str, object]) -> None:
    used = [name for name, value in others.items() if value]
    if used:
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                f"{option} and {', '.join(used)} cannot be combined", found=", ".join(used)
            )
        )


def _print(changes: Sequence[Change], old: Lock | None, new: Lock) -> None:
    """What is pinned, for a first lock; else what changed, entry by entry."""
    if old is None:
        rows = [
            (name, e.method, str(e.rank), short_digest(e.digest, out) or "(mutable)", e.source)
            for name, e in new.adapters.items()
        ]
        if new.base is not None:
            known = new.base.fingerprint
            kind = known.architecture if known is not None else None
            rows.insert(0, ("base", kind or "", "", "", new.base.source))
        print_table(("name", "method", "rank", "digest", "source"), rows, out)
        return
    names = sorted({*old.adapters, *new.adapters}, key=len, reverse=True)
    for entry, group in _by_entry(changes, names).items():
        name = entry.removeprefix("adapters.")
        if entry != name and name not in old.adapters:
            added = new.adapters[name]
            _mark("+", entry, f"{added.source} {short_digest(added.digest, out)}".rstrip())
        elif entry != name and name not in new.adapters:
            _mark("-", entry, f"{old.adapters[name].source}")
        else:
            _print_entry(entry, group)


def _by_entry(changes: Iterable[Change], names: Sequence[str]) -> dict[str, list[Change]]:
    """Changes by the adapter that they are about; others by their first key."""
    entries: dict[str, list[Change]] = {}
    for change in changes:
        section, _, rest = change.path.partition(".")
        entry = section
        if section == "adapters":
            # A name may have dots in it, so the longest declared one is meant.
            entry += "." + next((n for n in names if f"{rest}.".startswith(f"{n}.")), rest)
        entries.setdefault(entry, []).append(change)
    return entries


def _print_entry(entry: str, changes: Sequence[Change]) -> None:
    if len(changes) == 1 and changes[0].path == entry:
        _print_change(changes[0], entry, 0)
        return
    _mark("~", entry, "")
    for change in changes:
        _print_change(change, change.path[len(entry) + 1 :], 4)


def _print_change(change: Change, label: str, indent: int) -> None:
    old, new = short_digest(change.old, out), short_digest(change.new, out)
    if change.old is None:
        _mark("+", label, new, indent)
    elif change.new is None:
        _mark("-", label, old, indent)
    else:
        _mark("~", label, f"{old} -> {new}", indent)


def _mark(sign: str, label: str, text: str, indent: int = 0) -> None:
    parts: list[Styled] = [(f"{sign} {label}", _STYLES[sign])]
    if text:
        parts.append(f": {text}")
    say(*parts, indent=indent)


def _conclude(path: Path, new: Lock, changed: bool, *, wrote: bool) -> None:
    pinned = sum(not entry.mutable for entry in new.adapters.values())
    if wrote:
        adapters = "1 adapter" if pinned == 1 else f"{pinned} adapters"
        err.line(f"wrote {path}: {adapters}{' and the base' if new.base else ''} pinned")
    elif changed:
        err.line("nothing was written")
    else:
        err.line(f"{path} is current; nothing would change")
