"""`adapterdock validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import exit_with
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
    check_arguments,
    importing_torch,
    manifest_argument,
)

if TYPE_CHECKING:
    from ..registry.access.access import AskLayout, AskPeft


def _ask() -> tuple[AskLayout, AskPeft]:
    with importing_torch():
        from ..loader.base.meta_layout import layout_of_config
        from ..loader.methods.peft.fit import peft_asker
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
    """Check that every adapter fits the base, before any download.

    Reads configs and safetensors headers only, never weights. Prints all problems at once, each
    with its place, the value found, the value expected, and a fix. If there is a lock, validate
    checks the pinned versions, which are those that `load` uses.

    Exit status: 0 everything fits, 1 something does not fit, 2 wrong usage, 3 some checks could
    not run.

    Examples:

      adapterdock validate
      adapterdock validate team.yaml --policy platform.yaml
      adapterdock validate --json | jq '.findings[].code'
      adapterdock validate --model ./finetuned     # would they fit this base?
      adapterdock validate --accept AD364          # accept this unchecked finding
    """
    from ..registry.validate import validate as validate_manifest

    check_arguments(model, dtype, policy)
    if accept:  # imported only if needed, since it loads the store
        from ..registry.access.session import accepted_codes

        accept = sorted(accepted_codes(accept))
    ask, ask_peft = _ask() if deep else (None, None)
    report = validate_manifest(
        manifest_argument(manifest),
        model=model,
        dtype=dtype,
        policy=policy,
        accept=accept or (),
        frozen=frozen,
        offline=offline,
        ask=ask,
        ask_peft=ask_peft,
    )
    exit_with(report, as_json)
