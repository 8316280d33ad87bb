"""`adapterdock merge`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.weights import shown
from .cache import parse_size
from .console import err, say, status
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    FrozenOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    accepted_codes,
    complete_adapter,
    manifest_argument,
)
from .progress import shown_progress
from .render import human_bytes, print_findings
from .run import hushed, require_names, require_torch


class Dtype(str, Enum):
    """What --dtype takes."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


@hushed()
def merge(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    composition: Annotated[
        str | None,
        typer.Option(
            "--composition",
            "-c",
            metavar="NAME",
            help="The composition or adapter to merge. Without it: what the manifest says is "
            "active.",
            autocompletion=complete_adapter,
        ),
    ] = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="Refuse to write NaN and infinite values.")
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype", help="Of all weights; without it each keeps the dtype of the checkpoint."
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size",
            metavar="SIZE",
            help="The most that one file holds: 2GB, 500MiB. Without it: the base's own files.",
        ),
    ] = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
) -> None:
    """Write a plain transformers model with adapters in its weights.

    Disk to disk, one tensor at a time: the model is never whole in memory. Merged in float32,
    rounded once; what no adapter changes is copied. A composition that is no sum is computed
    first. The result loads without adapterdock, and its weights' headers say what was merged. DIR
    appears when it is whole; one that is there is replaced only if `merge` wrote it.

    Examples:

      adapterdock merge --out ./merged
      adapterdock merge team.yaml --composition formal-billing --out ./merged --safe
      adapterdock merge -c tone -o ./tone-fp16 --dtype float16 --max-shard-size 2GB
    """
    from ..registry.files.new_folder import check_free
    from ..registry.locks.project import open_manifest

    path = manifest_argument(manifest)
    accepted = accepted_codes(accept)
    limit = None if max_shard_size is None else parse_size(max_shard_size)
    if limit == 0:
        raise UsageError(codes.BAD_SIZE.finding("a file holds at least a byte", found="0"))
    file = open_manifest(path, model=model)
    require_names([composition] if composition is not None else [], file)
    check_free(out)
    require_torch()
    try:
        with status("importing torch and transformers"):
            from ..loader.merge_files import merge_to_folder
    except ImportError as error:
        raise UsageError(
            codes.NEEDS_TORCH.finding("torch and transformers cannot be imported", found=error)
        ) from error
    with shown_progress(f"merging into {out}") as progress:
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
    print_findings(merged.notes, err, accepted)
    names = ", ".join(f"{name} at {shown(weight)}" for name, weight in merged.weights.items())
    size = human_bytes(sum(merged.files.values()))
    say(f"{out}: {names} merged; {len(merged.files)} files, {size}")
