"""`adapterdock registry verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import out, say
from .options import JsonOption
from .progress import shown_progress
from .registries import PlaceArgument, RegistriesOption, manifest_of
from .render import counted, human_bytes, print_findings

SCHEMA = "adapterdock.registry-verify/1"


def verify(
    registry: PlaceArgument,
    no_write: Annotated[
        bool,
        typer.Option("--no-write", help="Do not complete the journal; only say what it lacks."),
    ] = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare everything in a registry with its digests.

    Reads every file once, also all contents, and lists what is missing, changed or out of order.
    Nothing is deleted or overwritten. Adds the lines to the journal that a killed command left out,
    unless the registry is a mirror. Exits with 1 if something is wrong.

    Examples:

      adapterdock registry verify ./registry
      adapterdock registry verify team --json | jq '.findings[].message'
    """
    from ..manifests.findings.finding import Report
    from ..registry.catalogue.verify import verify_registry
    from ..registry.registries import open_named

    catalogue = open_named(registry, manifest_of(manifest))
    with shown_progress(f"Verifying {registry}") as progress:
        found = verify_registry(catalogue, complete=not no_write, progress=progress)
    report = Report(registry, found.findings)
    if as_json:
        data = {
            "url": catalogue.storage.url,
            "id": catalogue.id,
            "ok": report.ok,
            "counts": dict(found.counts),
            "bytes": found.size,
            "added": [dict(line) for line in found.added],
            "findings": [finding.as_dict() for finding in found.findings],
        }
        out.as_json(SCHEMA, data)
        raise typer.Exit(report.exit_status)
    if found.findings:
        print_findings(found.findings, out)
    entries = counted(found.counts["entries"], "version")
    contents = f"{counted(found.counts['contents'], 'content')} ({human_bytes(found.size)})"
    files = sum(found.counts.values()) - found.counts["entries"] - found.counts["contents"]
    say(f"Verified {entries}, {contents} and {counted(files, 'other file')}")
    if found.added:
        say(f"Added {counted(len(found.added), 'line')} to the journal", indent=2)
    raise typer.Exit(report.exit_status)
