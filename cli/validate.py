"""`adapterdock validate`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from .console import out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
)
from .render import print_report


def validate(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that every adapter fits the base, from configs and headers, before any download.

    Exit status: 0 fits, 1 does not fit, 2 wrong usage, 3 something could not be checked.

    Examples:

      adapterdock validate

      adapterdock validate team.yaml --policy platform.yaml --json

      adapterdock validate --accept AD332   # a person takes responsibility for it
    """
    from ..registry.validate import validate as validate_manifest

    report = validate_manifest(
        Path(manifest),
        model=model,
        dtype=dtype,
        policy=policy,
        accept=accept or (),
        frozen=frozen,
        offline=offline,
    )
    if as_json:
        say(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, out())
    raise typer.Exit(report.exit_status)
