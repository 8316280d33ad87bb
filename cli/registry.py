"""`adapterdock registry`: init, snapshot, verify, gc, renumber."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .command import Command, Group
from .console import out, say, status
from .options import JsonOption, folder_argument
from .registries import PlaceArgument, RegistriesOption, manifest_of
from .registry_gc import gc
from .registry_renumber import renumber
from .registry_verify import verify
from .render import counted
from .rules import app as rules_app

SCHEMA = "adapterdock.registry/1"
SNAPSHOT_SCHEMA = "adapterdock.snapshot/1"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Create and maintain registries of published adapters.\n\n"
    "A registry is a folder: on a disk, in a git checkout or in object storage. Nothing in it is "
    "ever overwritten.",
)
app.add_typer(rules_app, name="rules")


@app.command("init", cls=Command)
def init(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The folder: ./registry.", show_default=False)
    ],
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="A name, for people.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a registry in a folder of its own.

    First proves that the storage creates a file only where there is none. A local registry gets a
    `.gitattributes`, so that git changes no bytes.

    Examples:

      adapterdock registry init ./registry
      adapterdock registry init ./registry --title 'Customer service'
    """
    from ..registry.catalogue.init import init_registry
    from ..registry.catalogue.open_storage import open_storage
    from ..registry.storages.local_storage import LocalStorage

    storage = open_storage(folder_argument(url), directory=Path.cwd())
    made = init_registry(storage, title, local=isinstance(storage, LocalStorage))
    if as_json:
        out.as_json(SCHEMA, {"url": storage.url, "id": made.id, "title": made.title})
        return
    say(f"Created a registry in {url}; its id is {made.id}")


@app.command("snapshot", cls=Command)
def snapshot(
    registry: PlaceArgument,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a list of all versions, so that the next search is fast.

    Lists the whole registry, so that nothing is left out that a killed publisher did not note.
    `publish` writes a snapshot too, every 1,000 entries.

    Examples:

      adapterdock registry snapshot ./registry
      adapterdock registry snapshot team
    """
    from ..registry.catalogue.take_snapshot import take_snapshot
    from ..registry.registries import open_named

    catalogue = open_named(registry, manifest_of(manifest))
    with status(f"Listing {registry}"):
        taken = take_snapshot(catalogue)
    if as_json:
        data = {"url": catalogue.storage.url, "id": catalogue.id}
        more = {"path": None, "rows": 0, "new": False} if taken is None else vars(taken)
        out.as_json(SNAPSHOT_SCHEMA, {**data, **more})
    elif taken is None:
        say("The registry is empty; no snapshot was written")
    elif not taken.new:
        say(f"{taken.path} is there already: {counted(taken.rows, 'version')}")
    else:
        say(f"Wrote {taken.path}: {counted(taken.rows, 'version')}")


app.command("verify", cls=Command)(verify)
app.command("gc", cls=Command)(gc)
app.command("renumber", cls=Command)(renumber)
