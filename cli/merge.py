"""`adapterdock merge`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.weights import shown
from .cache import parse_size
from .console import err, say
from .console import out as stdout
from .mix import require_names
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    FrozenOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    complete_adapter,
    importing_torch,
    open_manifest_argument,
    require_allowed,
    require_torch,
)
from .progress import shown_progress
from .render import human_bytes, print_findings
from .run import hushed

SCHEMA = "adapterdock.merge/1"


class Dtype(str, Enum):
    """What --dtype takes."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


@hushed()
def merge(
    out_text: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")
    ],
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    composition: Annotated[
        str | None,
        typer.Option(
            "--composition",
            "-c",
            metavar="NAME",
            help="The composition or adapter to merge (default: the manifest's `active`).",
            autocompletion=complete_adapter,
        ),
    ] = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="Refuse to write NaN and infinite values.")
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype", help="Write all weights in this dtype (default: the checkpoint's dtypes)."
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size",
            metavar="SIZE",
            help="Largest size of one file: 2GB, 500MiB (default: the base's own files).",
        ),
    ] = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a plain transformers model with merged adapters.

    Merges from disk to disk, one tensor at a time, so the model does not have to fit in memory.
    Computes in float32 and rounds once; copies tensors that no adapter changes. Compositions other
    than sums are computed first. The result loads without adapterdock, and its headers record what
    was merged. DIR is created only on success; an existing DIR is replaced only if `merge` wrote
    it.

    Examples:

      adapterdock merge --out ./merged
      adapterdock merge team.yaml --composition formal-billing --out ./merged --safe
      adapterdock merge -c tone -o ./tone-fp16 --dtype float16 --max-shard-size 2GB
    """
    from ..registry.files.disk import output_path
    from ..registry.files.new_folder import check_free

    out = output_path(out_text)
    limit = None if max_shard_size is None else parse_size(max_shard_size)
    if limit == 0:
        raise UsageError(codes.BAD_SIZE.finding("--max-shard-size must be above 0", found="0"))
    file = open_manifest_argument(manifest, model, None, policy)
    require_names([composition] if composition is not None else [], file)
    check_free(out)
    require_torch()
    require_allowed(file, policy=policy, accept=accept, frozen=frozen, offline=offline)
    with importing_torch():
        from ..loader.merge_files import merge_to_folder
    accepted = accept or ()
    with shown_progress(f"Merging into {out}") as progress:
        merged = merge_to_folder(
            file,
            out,
            selection=composition,
            safe=safe,
            dtype=dtype.value if dtype is not None else None,
            max_shard_size=limit,
            policy=policy,
            accept=accepted,
            frozen=frozen,
            offline=offline,
            progress=progress,
        )
    if as_json:
        data = {
            "folder": str(out),
            "merged": {name: shown(weight) for name, weight in merged.weights.items()},
            "files": dict(merged.files),
            "findings": [finding.as_dict() for finding in merged.notes],
        }
        stdout.as_json(SCHEMA, data)
        return
    print_findings(merged.notes, err, accepted)
    names = ", ".join(f"{name} at {shown(weight)}" for name, weight in merged.weights.items())
    size = human_bytes(sum(merged.files.values()))
    say(f"{out}: {names} merged; {len(merged.files)} files, {size}")
