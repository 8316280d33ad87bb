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
    MaxLorasOption,
    MaxRankOption,
    ModelOption,
    OfflineOption,
    PolicyOption,
    TargetOption,
    check_arguments,
    check_target_options,
    importing_torch,
    manifest_argument,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..manifests.findings.finding import Finding
    from ..registry.access.access import AskLayout, AskPeft
    from ..registry.resolution import Resolution


def _ask() -> tuple[AskLayout, AskPeft]:
    with importing_torch():
        from ..loader.base.meta_layout import layout_of_config
        from ..loader.methods.peft.fit import peft_asker
    return layout_of_config, peft_asker()


def _also(
    target: str | None, max_rank: int | None, max_loras: int | None
) -> Callable[[Resolution], list[Finding]] | None:
    """What else is asked of what was read: whether the target can serve it."""
    if target is None:
        check_target_options(max_rank, max_loras)
        return None
    from ..serving.targets.check import check_local_values, check_target
    from ..serving.targets.target import Target

    aim = Target.parse(target, max_rank=max_rank, max_loras=max_loras)

    def also(resolution: Resolution) -> list[Finding]:
        found = check_target(aim, resolution.file, resolution.adapters, resolution.base)
        return [*found, *check_local_values(resolution.file, resolution.adapters)]

    return also


def validate(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    deep: DeepOption = False,
    target: TargetOption = None,
    max_rank: MaxRankOption = None,
    max_loras: MaxLorasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every adapter fits the base, before any download.

    Reads configs and safetensors headers only, never weights. Prints all problems at once, each
    with its place, the value found, the value expected, and a fix. If there is a lock, validate
    checks the pinned versions, which are those that `load` uses.

    With --target it also says what that engine cannot serve, and reads the values of adapters that
    are on this machine: NaN in one adapter can spoil the answers of a complete server.

    Exit status: 0 everything fits, 1 something does not fit, 2 wrong usage, 3 some checks could
    not run.

    Examples:

      adapterdock validate
      adapterdock validate team.yaml --policy platform.yaml
      adapterdock validate --json | jq '.findings[].code'
      adapterdock validate --model ./finetuned     # would they fit this base?
      adapterdock validate --accept AD364          # accept this unchecked finding
      adapterdock validate --target vllm==0.32 --max-rank 16
    """
    from ..registry.validate import validate as validate_manifest

    check_arguments(model, dtype, policy)
    also = _also(target, max_rank, max_loras)
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
        also=also,
    )
    exit_with(report, as_json)
