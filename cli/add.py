"""`adapterdock add`."""

from __future__ import annotations

from typing import Annotated

import typer

from .editing import DEFAULT, DryRunOption, FileOption, carry_out
from .options import (
    AcceptOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    PolicyOption,
    check_arguments,
    manifest_argument,
)


def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The new adapter's name.", show_default=False)
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Where it is: ./folder, hf://org/name, registry://team/name@1.2, s3://...",
            show_default=False,
        ),
    ],
    manifest: FileOption = DEFAULT,
    dry_run: DryRunOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add an adapter to the manifest, and lock it.

    Checks that the adapter fits, as `lock` does. The manifest keeps its comments, layout and order.
    If anything fails, or on Ctrl-C, manifest and lock stay as they were. A relative SOURCE counts
    from the current folder, and is written relative to the manifest.

    Examples:

      adapterdock add pirate ./adapters/pirate
      adapterdock add refunds registry://team/refunds@^2
      adapterdock add pirate ../pirate --manifest serving/team.yaml
      adapterdock add pirate ./adapters/pirate --dry-run     # show the change
    """
    from ..registry.editing import add as add_to

    manifest_argument(manifest)
    check_arguments(model, dtype, policy)
    edit = add_to(manifest, name, source, model=model, dtype=dtype)
    carry_out(
        edit,
        f"Added {name!r} to {manifest}",
        policy=policy,
        accept=accept or (),
        offline=offline,
        dry_run=dry_run,
        as_json=as_json,
    )
