"""`adapterdock registry`: init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .command import Command, Group
from .console import out, say
from .options import JsonOption
from .rules import app as rules_app

SCHEMA = "adapterdock.registry/1"

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
    """Create a registry in an empty folder.

    First proves that the storage creates a file only where there is none. A local registry gets a
    `.gitattributes`, so that git changes no bytes.

    Examples:

      adapterdock registry init ./registry
      adapterdock registry init ./registry --title 'Customer service'
    """
    from ..registry.catalogue.init import init_registry
    from ..registry.catalogue.local_storage import LocalStorage
    from ..registry.catalogue.open_storage import open_storage

    storage = open_storage(url, directory=Path.cwd())
    made = init_registry(storage, title, local=isinstance(storage, LocalStorage))
    if as_json:
        out.as_json(SCHEMA, {"url": storage.url, "id": made.id, "title": made.title})
        return
    say(f"Created a registry in {url}; its id is {made.id}")
