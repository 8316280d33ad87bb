"""`adapterdock lock`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Severity
from .command import exit_with
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
    complete_adapter,
    open_manifest_argument,
)
from .progress import shown_progress
from .render import counted, print_findings, print_table, short_digest

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..manifests.manifest import ManifestFile
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
            help="Update the pin of this adapter, or of `base` (repeat for more).",
            autocompletion=complete_adapter,
        ),
    ] = None,
    upgrade_all: Annotated[bool, typer.Option("--upgrade-all", help="Update every pin.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 unless the lock exists and is current."
        ),
    ] = False,
    show_diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Write nothing; show what updating the pins (all, or those of --upgrade) changes.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pin every source to its exact bytes, in NAME.lock.

    Runs the checks of `validate` first. Downloads the adapters, because a lock holds their
    digests; of a remote base it downloads only small files. Entries that did not change keep their
    pins. Commit the lock and NAME.lock.samples beside the manifest, so that everybody loads the
    same bytes. A merge conflict in the lock is resolved: pins that both sides have alike, or only
    one side has, are kept.

    Examples:

      adapterdock lock
      adapterdock lock --check            # in CI
      adapterdock lock --diff             # has anything moved upstream?
      adapterdock lock --upgrade tone     # pin the new version, and review the diff
      adapterdock lock --accept AD364     # the lock records it
    """
    if check:
        others = {
            "--diff": show_diff,
            "--upgrade": upgrade,
            "--upgrade-all": upgrade_all,
            "--accept": accept,
        }
        _refuse_with("--check", others)
    if upgrade_all:
        _refuse_with("--upgrade-all", {"--upgrade": upgrade})
    file = open_manifest_argument(manifest, model, dtype, policy)
    if check:
        _check(file, policy, offline, as_json)

    from ..manifests.lockfile import lock_path, write_lock
    from ..registry.access.session import session_for
    from ..registry.lock import make_lock
    from ..registry.locks.diff import diff
    from ..registry.locks.project import is_to_write, lock_to_replace

    path = lock_path(manifest)
    accepted = accept or ()
    old = lock_to_replace(file)
    with shown_progress(f"Locking {manifest}") as progress:
        new, resolution = make_lock(
            file,
            old,
            session_for(file, policy=policy, accept=accepted, offline=offline, progress=progress),
            upgrade=upgrade or (),
            upgrade_all=upgrade_all or (show_diff and not upgrade),
        )
    notes = [f for f in resolution.findings if f.severity is not Severity.ERROR]
    wrote = not show_diff and is_to_write(file, old, new)
    if wrote:
        write_lock(new, path)
    changes = diff(old, new)
    if as_json:
        data = {
            "lock": str(path),
            "wrote": wrote,
            "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
            "accepted": list(new.accepted),
            "findings": [f.as_dict() for f in notes],
        }
        out.as_json(SCHEMA, data)
        return
    print_findings(notes, err, new.accepted)
    _print(changes, old, new)
    if wrote:
        pinned = sum(not entry.mutable for entry in new.adapters.values())
        base = " and the base" if new.base else ""
        err.line(f"Wrote {path}: {counted(pinned, 'adapter')}{base} pinned")
    else:
        err.line("Nothing was written" if changes else f"{path} is current; nothing changed")


def _check(file: ManifestFile, policy: Path | None, offline: bool, as_json: bool) -> None:
    from ..registry.validate import check_lock

    exit_with(check_lock(file, policy=policy, offline=offline), as_json)


def _refuse_with(option: str, others: Mapping[str, object]) -> None:
    """Raise :class:`UsageError` if another of these options is used together with ``option``."""
    used = [name for name, value in others.items() if value]
    if used:
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                f"{option} and {', '.join(used)} cannot be combined", found=", ".join(used)
            )
        )


def _print(changes: Sequence[Change], old: Lock | None, new: Lock) -> None:
    """Print what a first lock pins, or what changed since ``old``, entry by entry."""
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
        elif group[0].path == entry:
            _print_change(group[0], entry, 0)
        else:
            _mark("~", entry, "")
            for change in group:
                _print_change(change, change.path[len(entry) + 1 :], 4)


def _by_entry(changes: Iterable[Change], names: Sequence[str]) -> dict[str, list[Change]]:
    """Changes by adapter; other changes by their first key."""
    entries: dict[str, list[Change]] = {}
    for change in changes:
        section, _, rest = change.path.partition(".")
        entry = section
        if section == "adapters":
            # A name may contain dots, so take the longest declared one.
            entry += "." + next((n for n in names if f"{rest}.".startswith(f"{n}.")), rest)
        entries.setdefault(entry, []).append(change)
    return entries


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
