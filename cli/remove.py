"""`adapterdock remove`."""

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
    complete_adapter,
    manifest_argument,
)


def remove(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The adapter or composition to remove.",
            show_default=False,
            autocompletion=complete_adapter,
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
    """Remove an adapter from the manifest, and lock it.

    NAME may be a composition too. Refuses a name that compositions, rules or `active` still use,
    and says where. Comments inside the entry and right above it go with it; everything else stays
    as it is. If anything fails, or on Ctrl-C, manifest and lock stay as they were. No files of the
    adapter are deleted.

    Examples:

      adapterdock remove pirate
      adapterdock remove pirate --manifest serving/team.yaml
      adapterdock remove pirate --dry-run     # show the change
    """
    from ..registry.editing import remove as remove_from

    manifest_argument(manifest)
    check_arguments(model, dtype, policy)
    edit = remove_from(manifest, name, model=model, dtype=dtype)
    carry_out(
        edit,
        f"Removed {name!r} from {manifest}",
        policy=policy,
        accept=accept or (),
        offline=offline,
        dry_run=dry_run,
        as_json=as_json,
    )
