"""`adapterdock validate`."""

from __future__ import annotations

import typer

from .console import out
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
    accepted_codes,
    check_given,
    given_manifest,
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
    """Prove that every adapter fits the base, before downloads.

    Reads configs and safetensors headers only, never weights. Everything that is wrong is told at
    once, each with its place, what was found, what was expected, and what to do. A lock beside the
    manifest is obeyed, so that the verdict is on what would be loaded.

    Exit status: 0 it fits, 1 it does not, 2 wrong usage, 3 something could not be checked.

    Examples:

      adapterdock validate
      adapterdock validate team.yaml --policy platform.yaml
      adapterdock validate --json | jq '.findings[].code'
      adapterdock validate --model ./finetuned     # would they fit this base?
      adapterdock validate --accept AD364          # a person takes responsibility
    """
    from ..registry.validate import validate as validate_manifest

    check_given(model, dtype, policy)
    report = validate_manifest(
        given_manifest(manifest),
        model=model,
        dtype=dtype,
        policy=policy,
        accept=accepted_codes(accept),
        frozen=frozen,
        offline=offline,
    )
    if as_json:
        data = report.as_dict()
        out.as_json(data.pop("schema"), data)
    else:
        print_report(report, out)
    raise typer.Exit(report.exit_status)
