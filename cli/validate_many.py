"""What `adapterdock validate` does with several manifests, or with several bases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..manifests.find import Found, find_manifests, names_several
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Finding, Report, Where
from ..registry.files.names import ADAPTER_CONFIG
from .console import clean, err, out
from .hints import completed_report
from .options import manifest_argument
from .render import counted, print_findings, print_verdict, verdict_of, words_of

if TYPE_CHECKING:
    from ..registry.access.shared_reads import Reads
    from ..registry.validate_many import Check, Checked

SCHEMA = "adapterdock.reports/1"
SHOWN_SKIPPED = 5
"""How many skipped files are named in text; all of them are in JSON."""


def find(inputs: Sequence[Path], *, only_manifests: bool, may_be_none: bool) -> Found:
    """The manifests that the arguments name.

    Args:
        inputs: Files, folders and globs.
        only_manifests: Skips a named file that is not a manifest.
        may_be_none: Allows that all named files are skipped.

    Raises:
        UsageError: One does not exist, or there is no manifest among them.
    """
    problems: list[Finding] = []
    for path in inputs:
        try:
            if not names_several(path):
                manifest_argument(path, several=True)
        except UsageError as error:
            problems += error.findings
    if problems:
        raise UsageError(*problems)
    if not only_manifests:
        return Found(tuple(map(str, inputs)), ())
    found = find_manifests(inputs)
    if not found.manifests and (adapters := list(_adapters_among(inputs))):
        raise UsageError(*adapters)
    if not found.manifests and not (may_be_none and not any(map(names_several, inputs))):
        raise UsageError(
            codes.NO_MANIFESTS.finding(
                "There is no manifest here",
                Where(file=", ".join(map(str, inputs))),
                found=counted(len(found.skipped), "other YAML file"),
                expected="a YAML file with `version` and `base` or `extends`",
            )
        )
    return found


def _adapters_among(inputs: Sequence[Path]) -> Iterator[Finding]:
    """On folders that are those of adapters."""
    from ..registry.locks.project import adapter_as_manifest

    for path in inputs:
        if (path / ADAPTER_CONFIG).is_file() and (found := adapter_as_manifest(path)) is not None:
            yield found


def check_found(
    found: Found, check: Check, models: Sequence[str], *, deep: bool = False
) -> list[Checked]:
    """Check each manifest on each of ``models`` (none: on the base that it declares). With
    ``deep`` one after another: transformers cannot make two models at once."""
    from ..registry.validate_many import WORKERS, validate_many

    count, done = len(found.manifests), 0
    shown = err.console.status(f"Checking {counted(count, 'manifest')}") if err.fancy else None

    def one_done() -> None:
        nonlocal done
        done += 1
        if shown is not None:
            shown.update(f"Checked {done} of {counted(count, 'manifest')}")

    def one(manifest: str, model: str | None, reads: Reads) -> Report:
        return completed_report(check(manifest, model, reads), Path(manifest))

    with nullcontext() if shown is None else shown:
        return validate_many(
            found.manifests,
            one,
            tuple(models) or (None,),
            workers=1 if deep else WORKERS,
            done=one_done,
        )


def print_as(
    form: str, checked: Sequence[Checked], found: Found, *, command: str = "validate"
) -> None:
    """Print the results of ``command`` in a format of `--format`."""
    last = total(checked, found, of_locks=command != "validate")
    if form == "json":
        out.as_json(SCHEMA, as_dict(checked, found))
    elif form == "text":
        print_text(checked, last)
    elif form == "sarif":
        from .sarif import sarif_log

        out.raw(json.dumps(sarif_log(checked), indent=2))
    elif form == "github":
        from .workflow_commands import commands, plain

        for command in commands(checked):
            out.raw(command)
        for one in checked:
            out.raw(plain(clean(f"{one.title}: {verdict_of(one.report)}")))
        out.raw(plain(last))
    else:
        from .junit import junit_xml

        out.raw(junit_xml(checked, command))


def as_dict(checked: Sequence[Checked], found: Found) -> dict[str, Any]:
    """The results as data; the keys are stable."""
    from ..registry.validate_many import exit_status_of

    statuses = [one.report.exit_status for one in checked]
    return {
        "ok": not any(statuses),
        "exit_status": exit_status_of(checked),
        "counts": {
            "checked": len(checked),
            "fits": statuses.count(0),
            "wrong": statuses.count(1),
            "unchecked": statuses.count(3),
            "skipped": len(found.skipped),
        },
        "skipped": list(found.skipped),
        "reports": [
            {
                "model": one.model,
                "verdicts": {name: verdict.as_dict() for name, verdict in one.verdicts.items()},
                **one.report.as_dict(),
            }
            for one in checked
        ],
    }


def print_text(checked: Sequence[Checked], last: str) -> None:
    """The findings and one line of each manifest, and ``last``: a total."""
    first_codes: list[str] = []
    for one in checked:
        print_findings(one.report.findings, out, one.report.accepted)
        print_verdict(one.report, one.title, out)
        if one.model is not None:
            for name, verdict in one.verdicts.items():
                out.line(f"{name}: {words_of(verdict)}", indent=2)
        first_codes += [f.code for f in (*one.report.errors, *one.report.unchecked)]
    if first_codes:
        out.line(f"Learn more: adapterdock explain {min(first_codes)}")
    out.line((last, "bold"))


def total(checked: Sequence[Checked], found: Found, *, of_locks: bool = False) -> str:
    """The last line: how many manifests fit (``of_locks``: how many locks pass), and how many do
    not."""
    statuses = [one.report.exit_status for one in checked]
    wrong, unchecked = statuses.count(1), statuses.count(3)
    text = counted(len(found.manifests), "manifest")
    bases = len({one.model for one in checked})
    if bases > 1:
        text += f" on {bases} bases"
    fits = statuses.count(0)
    if of_locks:
        text += f": {counted(fits, 'lock')} {'passes' if fits == 1 else 'pass'}"
    else:
        text += f": {fits} {'fits' if fits == 1 else 'fit'}"
    if wrong:
        text += f", {wrong} {'does' if wrong == 1 else 'do'} not"
    if unchecked:
        text += f", {unchecked} not completely checked"
    return text + skipped_words(found)


def skipped_words(found: Found) -> str:
    """``. Skipped 1 other YAML file: compose.yaml``; empty where none was."""
    if not found.skipped:
        return ""
    names = ", ".join(map(clean, found.skipped[:SHOWN_SKIPPED]))
    more = ", ..." if len(found.skipped) > SHOWN_SKIPPED else ""
    return f". Skipped {counted(len(found.skipped), 'other YAML file')}: {names}{more}"
