"""`adapterdock fmt`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import EXIT_WRONG
from .console import err, out, say
from .options import DEFAULT_MANIFEST, JsonOption, manifest_argument
from .render import counted, print_findings

if TYPE_CHECKING:
    from ..manifests.findings.finding import Finding

SCHEMA = "adapterdock.fmt/1"


@dataclass(frozen=True)
class Formatted:
    """One manifest: whether its text is another when formatted, or why it cannot be."""

    file: str
    changed: bool = False
    findings: tuple[Finding, ...] = ()


def fmt(
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Manifests, folders (searched recursively) or globs (default: adapters.yaml).",
            show_default=False,
            metavar="FILE|DIR|GLOB",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit 1 if a file would change."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Format manifests: the order of keys, and indentation.

    Keys come in the order of the reference, indented by two spaces. Keeps every comment, the order
    of names and lists, and what is written in braces. The result is read again: if it would mean
    something else, the file stays as it is and `fmt` says so. A second run changes nothing.

    Exit status: 0 success, 1 a file cannot be formatted (with --check: or would change).

    Examples:

      adapterdock fmt
      adapterdock fmt --check teams/          # in CI
      adapterdock fmt 'teams/*/adapters.yaml'
    """
    from ..manifests.find import find_manifests

    inputs = manifests or [manifest_argument(DEFAULT_MANIFEST)]
    found = find_manifests(inputs)
    done = [_format(Path(path), check) for path in found.manifests]
    findings = [finding for one in done for finding in one.findings]
    changed = [one.file for one in done if one.changed]
    status = EXIT_WRONG if findings or (check and changed) else 0
    if as_json:
        data = {
            "checked": [one.file for one in done],
            "changed": changed,
            "skipped": list(found.skipped),
            "wrote": not check,
            "exit_status": status,
            "findings": [finding.as_dict() for finding in findings],
        }
        out.as_json(SCHEMA, data)
        raise typer.Exit(status)
    for name in changed:
        say(f"{'Would format' if check else 'Formatted'} {name}")
    print_findings(findings, err)
    skipped = f"; {counted(len(found.skipped), 'other YAML file')} skipped" if found.skipped else ""
    verb = "would change" if check else "changed"
    err.line(f"{len(changed)} of {counted(len(done), 'manifest')} {verb}{skipped}")
    raise typer.Exit(status)


def _format(path: Path, check: bool) -> Formatted:
    """Format one file, and write it unless it is only checked."""
    from ..manifests.bounds import MANIFEST_BYTES
    from ..manifests.findings import language
    from ..manifests.findings.errors import AdapterdockError
    from ..manifests.findings.finding import Where
    from ..manifests.format import formatted
    from ..manifests.reading.bounded_file import read_at_most
    from ..manifests.rewrite import rewrite

    name = str(path)
    try:
        before = read_at_most(path, MANIFEST_BYTES, regular=True)
        after = formatted(before, name)
        if after != before and not check:
            rewrite(path, before, after)
        return Formatted(name, after != before)
    except AdapterdockError as error:
        return Formatted(name, findings=error.findings)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"Cannot read the file: {reason}"
        return Formatted(name, findings=(language.UNREADABLE.finding(message, Where(name)),))
