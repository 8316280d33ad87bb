"""`adapterdock sbom`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    JsonOption,
    ManifestArgument,
    OfflineOption,
    PolicyOption,
    manifest_argument,
)
from .render import print_findings

SCHEMA = "adapterdock.sbom/1"


def sbom(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there (default: print it)."),
    ] = None,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a bill of materials of a locked manifest, as CycloneDX.

    It lists the base, the adapters and the compositions, each file with its SHA-256, where they
    come from, and their licences: those in the manifest, else those in the model cards. Warnings
    say which licences are unknown, and which need a look because they are used together. The same
    lock and licences give the same bytes. With --json, the warnings are part of the output.

    Needs the extra `sbom`: pip install 'adapterdock[sbom]'.

    Examples:

      adapterdock sbom --output bom.json
      adapterdock sbom | jq '.components[] | {name, licenses}'
    """
    from ..registry.bill import bill
    from ..registry.cyclonedx import cyclonedx
    from ..registry.files.disk import write_output

    found = bill(manifest_argument(manifest), policy=policy, offline=offline)
    content = cyclonedx(found)
    if output is not None:
        write_output(output, content, "Cannot write the bill of materials")
    if as_json:
        data = {
            "output": None if output is None else str(output),
            "findings": [finding.as_dict() for finding in found.findings],
            "bom": json.loads(content),
        }
        out.as_json(SCHEMA, data)
        return
    print_findings(found.findings, err)
    if output is None:
        stream = sys.stdout
        stream.write(content.decode())
    else:
        count = len(found.materials)
        say(f"Wrote {output}: {count} component{'' if count == 1 else 's'}")
