"""`adapterdock outdated`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from .command import EXIT_WRONG, status_of
from .console import err, out
from .options import (
    DEFAULT_MANIFEST,
    JsonOption,
    ManifestArgument,
    OfflineOption,
    PolicyOption,
    as_argument,
    open_manifest_argument,
)
from .render import counted, print_findings, print_table, short_digest

SCHEMA = "adapterdock.outdated/1"


def outdated(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """List locked adapters that have something newer.

    For adapters in a registry: newer versions that their source selects, newer versions at all,
    and aliases that moved. For adapters on the Hub: a branch or tag that moved. Changes nothing;
    `lock --upgrade NAME` moves a pin.

    Exit status: 0 nothing is newer, 1 something is, 2 wrong usage, 3 a source could not be reached.

    Examples:

      adapterdock outdated
      adapterdock outdated --json | jq '.adapters[] | select(.outdated) | .adapter'
    """
    from ..registry.outdated import outdated as compare

    file = open_manifest_argument(manifest, None, None, policy)
    result = compare(file, policy=policy, offline=offline)
    status = EXIT_WRONG if result.any else max(map(status_of, result.errors), default=0)
    newer = [one for one in result.standings if one.outdated]
    if as_json:
        rows = [{**asdict(one), "outdated": one.outdated} for one in result.standings]
        findings = [finding.as_dict() for finding in result.findings]
        out.as_json(SCHEMA, {"adapters": rows, "findings": findings, "exit_status": status})
        raise typer.Exit(status)
    if newer:
        rows = [
            (
                one.adapter,
                short_digest(one.locked, out),
                short_digest(one.selected, out) or "nothing",
                one.newest or "",
                one.alias or "",
                one.source,
            )
            for one in newer
        ]
        print_table(("name", "locked", "selected", "newest", "alias", "source"), rows, out)
    print_findings(result.findings, err)
    compared = counted(len(result.standings), "adapter")
    few = len(newer) == 1 or len(result.standings) == 1
    err.line(f"{len(newer)} of {compared} {'has' if few else 'have'} something newer")
    others = len(file.manifest.adapters) - len(result.standings)
    if others and not result.errors:
        every = f"`adapterdock lock{as_argument(manifest)} --diff`"
        err.line(
            f"Not compared: {counted(others, 'adapter')} without versions, pinned in the manifest, "
            f"or not locked; {every} reads every source again"
        )
    raise typer.Exit(status)
