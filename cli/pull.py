"""`adapterdock pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
)
from .render import human_bytes, print_findings, print_table


def pull(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="Whether to fetch the base model too.")
    ] = True,
) -> None:
    """Fetch what the lock pins, in parallel, verify it, and publish it in the cache.

    Afterwards the manifest loads offline. Without a lock it is resolved as `lock` would.

    Examples:

      adapterdock pull --frozen         # in an image build: exactly the locked bytes

      adapterdock pull --no-base        # adapters only
    """
    from ..registry.pull import pull as pull_manifest
    from .progress import rich_progress

    with rich_progress() as progress:
        pulled = pull_manifest(
            Path(manifest),
            model=model,
            dtype=dtype,
            policy=policy,
            accept=accept or (),
            frozen=frozen,
            offline=offline,
            with_base=base,
            progress=progress,
        )
    print_findings(pulled.notes, err())
    everything = {**({"base": pulled.base} if pulled.base else {}), **pulled.adapters}
    rows = [
        (
            name,
            str(len(files)),
            human_bytes(sum(f.fact.size for f in files.values())),
            str(next(iter(files.values())).path.parent),
        )
        for name, files in everything.items()
    ]
    if not rows:
        say("nothing to pull: the manifest declares no adapters and no base")
        return
    print_table(("name", "files", "size", "where"), rows, out())
    say("all verified")
