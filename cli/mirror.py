"""`adapterdock mirror`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import out, say
from .options import JsonOption
from .progress import shown_progress
from .promote import DryRunOption
from .registries import PlaceArgument, RegistriesOption, manifest_of
from .render import counted, human_bytes

SCHEMA = "adapterdock.mirror/1"


def mirror(
    registry: PlaceArgument,
    to: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="The mirror's folder: ./mirror, s3://bucket/folder.",
            show_default=False,
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Copy only adapters whose names match, such as 'support/*' (repeat for more).",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a registry, or what is new in it, to a mirror.

    Verifies every file before it is written. Nothing in the mirror is deleted or overwritten; if
    it has something that the registry does not have, nothing is copied. A run that was stopped is
    continued by the next one. A mirror has the registry's id, and refuses `publish`, `promote` and
    marks.

    Examples:

      adapterdock mirror team s3://other-bucket/adapters
      adapterdock mirror ./registry /mnt/usb/registry --only 'support/*'
      adapterdock mirror team ./mirror --dry-run
    """
    from ..registry.catalogue.mirror import mirror as copy
    from ..registry.catalogue.open_storage import open_storage
    from ..registry.registries import open_named
    from ..registry.storages.local_storage import LocalStorage

    origin = open_named(registry, manifest_of(manifest))
    storage = open_storage(to, directory=Path.cwd())
    with shown_progress(f"Comparing {registry} with {to}") as progress:
        done = copy(
            origin,
            storage,
            only=only or (),
            dry_run=dry_run,
            local=isinstance(storage, LocalStorage),
            progress=progress,
        )
    if as_json:
        names = {"origin": origin.storage.url, "mirror": storage.url, "dry_run": dry_run}
        data = {"id": done.id, "names": list(done.names), "files": list(done.files)}
        out.as_json(SCHEMA, {**names, **data, "bytes": done.size})
        return
    what = f"{counted(len(done.files), 'file')}, {human_bytes(done.size)}"
    if not done.files:
        say(f"{to} has everything already")
    else:
        say(f"Would copy {what}" if dry_run else f"Copied {what} to {to}")
    say(f"{counted(len(done.names), 'adapter')}; id {done.id}", indent=2)
