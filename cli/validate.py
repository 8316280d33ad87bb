"""`adapterdock validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import exit_with
from .formats import Format, FormatOption, format_of
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DeepOption,
    DtypeOption,
    FrozenOption,
    JsonOption,
    ManyOption,
    MaxLorasOption,
    MaxRankOption,
    OfflineOption,
    PolicyOption,
    TargetOption,
    check_arguments,
    importing_torch,
    manifest_argument,
)

if TYPE_CHECKING:
    from ..manifests.findings.finding import Report
    from ..registry.access.access import AskLayout, AskPeft
    from ..registry.access.shared_reads import Reads


def ask_torch() -> tuple[AskLayout, AskPeft]:
    """What --deep asks: transformers about an architecture, and PEFT about a method."""
    with importing_torch():
        from ..loader.base.meta_layout import layout_of_config
        from ..loader.methods.peft.fit import peft_asker
    return layout_of_config, peft_asker()


def validate(
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Manifests, folders (searched recursively) or globs (default: adapters.yaml).",
            show_default=False,
            metavar="FILE|DIR|GLOB",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Use another base model in this run: ./folder, hf://org/name, s3://bucket/folder "
            "(repeat to check each adapter on several).",
        ),
    ] = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    deep: DeepOption = False,
    target: TargetOption = None,
    max_rank: MaxRankOption = None,
    max_loras: MaxLorasOption = None,
    many: ManyOption = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every adapter fits the base, before any download.

    Reads configs and safetensors headers only, never weights. Prints all problems at once, each
    with its place, the value found, the value expected, and a fix. If there is a lock, validate
    checks the pinned versions, which are those that `load` uses.

    Of several manifests (or a folder, or a glob) it prints one line each and a total, and reads
    each base once. A manifest is a YAML file with `version` and `base` or `extends`; other YAML
    files are skipped and counted.

    With --target it also says what that engine cannot serve, and reads the values of adapters that
    are on this machine: NaN in one adapter can spoil the answers of a complete server.

    Exit status: 0 everything fits, 1 something does not fit, 2 wrong usage, 3 some checks could
    not run. Of several manifests, it is the worst: 1 before 3 before 0.

    Examples:

      adapterdock validate
      adapterdock validate team.yaml --policy platform.yaml
      adapterdock validate catalogue/              # every manifest in the folder
      adapterdock validate 'teams/*/adapters.yaml' --format junit > report.xml
      adapterdock validate --json | jq '.findings[].code'
      adapterdock validate --model ./finetuned     # would they fit this base?
      adapterdock validate --model ./a --model ./b # which fit which base?
      adapterdock validate --accept AD364          # accept this unchecked finding
      adapterdock validate --target vllm==0.32 --max-rank 16
    """
    from ..manifests.find import names_several
    from ..registry.validate import validate as validate_manifest
    from ..registry.validate_many import exit_status_of
    from ..serving.validate import check_for

    inputs, models = manifests or [DEFAULT_MANIFEST], list(dict.fromkeys(model or ()))
    form = format_of(form, as_json)
    for one in models or [None]:
        check_arguments(one, dtype, policy)
    also = check_for(target, max_rank, max_loras)
    if accept:  # imported only if needed, since it loads the store
        from ..registry.access.session import accepted_codes

        accept = sorted(accepted_codes(accept))
    ask, ask_peft = ask_torch() if deep else (None, None)

    def check(manifest: str | Path, model: str | None, reads: Reads | None) -> Report:
        return validate_manifest(
            manifest,
            model=model,
            dtype=dtype,
            policy=policy,
            accept=accept or (),
            frozen=frozen,
            offline=offline,
            ask=ask,
            ask_peft=ask_peft,
            also=also,
            reads=reads,
        )

    alone = not many and len(inputs) == 1 and not names_several(inputs[0])
    if alone and len(models) < 2 and form in (Format.text, Format.json):
        report = check(
            manifest_argument(inputs[0], several=True), models[0] if models else None, None
        )
        exit_with(report, form is Format.json)
    from .validate_many import check_found, find, print_as

    found = find(inputs, only_manifests=not alone, may_be_none=many)
    checked = check_found(found, check, models, deep=deep)
    print_as(form.value, checked, found)
    raise typer.Exit(exit_status_of(checked))
