"""`adapterdock validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from .console import out, status
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DeepOption,
    DtypeOption,
    FrozenOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    accepted_codes,
    check_arguments,
    manifest_argument,
)
from .render import print_report

if TYPE_CHECKING:
    from ..registry.access import AskLayout, AskPeft


def _ask() -> tuple[AskLayout, AskPeft]:
    try:
        with status("importing torch and transformers"):
            from ..loader.base.meta_layout import layout_of_config
            from ..loader.methods.peft.fit import peft_asker
    except ImportError as error:
        raise UsageError(
            codes.NEEDS_TORCH.finding("torch and transformers cannot be imported", found=error)
        ) from error
    return layout_of_config, peft_asker()


def validate(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    deep: DeepOption = False,
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

    check_arguments(model, dtype, policy)
    ask, ask_peft = _ask() if deep else (None, None)
    report = validate_manifest(
        manifest_argument(manifest),
        model=model,
        dtype=dtype,
        policy=policy,
        accept=accepted_codes(accept),
        frozen=frozen,
        offline=offline,
        ask=ask,
        ask_peft=ask_peft,
    )
    if as_json:
        data = report.as_dict()
        out.as_json(data.pop("schema"), data)
    else:
        print_report(report, out)
    raise typer.Exit(report.exit_status)
