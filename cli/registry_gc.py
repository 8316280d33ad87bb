"""`adapterdock registry gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from .console import err, out, say, status
from .durations import parse_duration
from .options import JsonOption
from .promote import DryRunOption
from .registries import PlaceArgument, RegistriesOption, manifest_of
from .render import counted, human_bytes

SCHEMA = "adapterdock.registry-gc/1"


def gc(
    registry: PlaceArgument,
    grace: Annotated[
        str,
        typer.Option(
            "--grace",
            metavar="TIME",
            help="For how long the files of an unfinished publish are kept: 90m, 24h, 7d (at least "
            "1h).",
        ),
    ] = "24h",
    dry_run: DryRunOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove contents that no published version needs.

    They are left by publishers that were stopped. Others may publish at the same time. Published
    versions are never removed.

    Examples:

      adapterdock registry gc ./registry --dry-run
      adapterdock registry gc team --grace 7d
    """
    seconds = parse_grace(grace)
    from ..registry.catalogue.collect import collect
    from ..registry.registries import open_named

    catalogue = open_named(registry, manifest_of(manifest))
    with status(f"Looking for contents that no version of {registry} needs"):
        done = collect(catalogue, grace=seconds, dry_run=dry_run)
    if as_json:
        data = {
            "url": catalogue.storage.url,
            "dry_run": dry_run,
            "condemned": sorted(done.condemned),
            "removed": sorted(done.removed),
            "kept": sorted(done.kept),
            "left": sorted(done.left),
            "bytes": done.freed,
        }
        out.as_json(SCHEMA, data)
        return
    if dry_run:
        size = human_bytes(sum(done.condemned.values()))
        say(f"Would remove {counted(len(done.condemned), 'content')} ({size})")
        for digest in sorted(done.condemned):
            say(digest, indent=2)
        return
    say(f"Removed {counted(len(done.removed), 'content')} ({human_bytes(done.freed)})")
    if done.kept:
        err.line(f"Kept {counted(len(done.kept), 'content')} that somebody is publishing")
    if done.left:
        err.line(f"Left {counted(len(done.left), 'content')} for the next gc")


def parse_grace(text: str) -> float:
    """Seconds. Raises :class:`UsageError` for invalid text, and for less than an hour."""
    from ..registry.catalogue.hold import LEAST_GRACE

    seconds = parse_duration(text)
    if seconds is None or seconds < LEAST_GRACE:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Invalid --grace {text[:40]!r}",
                found=text[:40],
                expected="90m, 24h, 7d; at least 1h",
                hint="Write a number, and m, h or d.",
            )
        )
    return seconds
