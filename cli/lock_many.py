"""`adapterdock lock` of several manifests, and `lock --check` of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, UsageError
from ..manifests.findings.finding import Report
from ..manifests.lockfile import lock_path
from .console import clean, err, out
from .formats import Format
from .hints import completed
from .lock_one import Locked, Locking, lock_one
from .render import counted, print_findings
from .validate_many import check_found, find, print_as, skipped_words
from .verbosity import is_quiet

if TYPE_CHECKING:
    from ..registry.access.shared_reads import Reads

SCHEMA = "adapterdock.locks/1"
LOCK_CHECK = "lock --check"


def check_many(
    inputs: Sequence[Path],
    form: Format,
    *,
    many: bool,
    locked_only: bool,
    model: str | None,
    dtype: str | None,
    policy: Path | None,
    offline: bool,
) -> NoReturn:
    """`lock --check` of several manifests; with ``locked_only``, of those that have a lock."""
    from ..registry.locks.project import open_manifest
    from ..registry.validate import check_lock
    from ..registry.validate_many import exit_status_of

    def one(manifest: str, _: str | None, reads: Reads | None) -> Report:
        try:
            file = open_manifest(manifest, model=model, dtype=dtype)
        except AdapterdockError as error:
            return Report(manifest, error.findings)
        return check_lock(file, policy=policy, offline=offline, reads=reads)

    found = find(inputs, only_manifests=True, may_be_none=many)
    if locked_only:
        locked = tuple(one for one in found.manifests if os.path.lexists(lock_path(one)))
        found = replace(found, manifests=locked)
    checked = check_found(found, one, ())
    print_as(form.value, checked, found, command=LOCK_CHECK)
    raise typer.Exit(exit_status_of(checked))


def lock_many(inputs: Sequence[Path], wanted: Locking, *, many: bool, as_json: bool) -> NoReturn:
    """Lock each manifest, the others too where one cannot be locked, and end with the worst
    status."""
    from .command import status_of

    if set(wanted.upgrade) - {"base"}:
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                "--upgrade NAME is for one manifest",
                found=", ".join(map(str, inputs)),
                hint="Name one manifest, or use --upgrade base or --upgrade-all.",
            )
        )
    found = find(inputs, only_manifests=True, may_be_none=many)
    rows: list[dict[str, Any]] = []
    done: list[Locked] = []
    statuses: list[int] = []
    for manifest in found.manifests:
        try:
            locked = lock_one(Path(manifest), wanted)
        except AdapterdockError as error:
            findings = completed(error.findings, Path(manifest))
            statuses.append(status_of(error))
            told = [f.as_dict() for f in findings]
            rows.append({"manifest": manifest, "lock": None, "findings": told})
            if not as_json:
                print_findings(findings, err)
                err.line(f"{manifest}: ", ("not locked", "bold red"))
            continue
        done.append(locked)
        statuses.append(0)
        rows.append({"manifest": manifest, **locked.as_dict()})
        if not as_json:
            if (locked.old is None or locked.changes) and not is_quiet():
                out.line((f"{manifest}:", "bold"))
            locked.print()
    status = next((s for s in (1, 2, 3) if s in statuses), 0)
    wrote = sum(locked.wrote for locked in done)
    changed = sum(bool(locked.changes) for locked in done if not locked.wrote)
    counts = {
        "locked": len(done),
        "wrote": wrote,
        "failed": len(rows) - len(done),
        "skipped": len(found.skipped),
    }
    if as_json:
        data = {"exit_status": status, "counts": counts, "skipped": list(found.skipped)}
        out.as_json(SCHEMA, {**data, "locks": rows})
        raise typer.Exit(status)
    text = f"{counted(len(rows), 'manifest')}: {counted(wrote, 'lock')} written"
    if changed:
        text += f", {changed} would change"
    if unchanged := len(done) - wrote - changed:
        text += f", {unchanged} unchanged"
    if counts["failed"]:
        text += f", {counts['failed']} cannot be locked"
    err.line((clean(text) + skipped_words(found), "bold"))
    raise typer.Exit(status)
