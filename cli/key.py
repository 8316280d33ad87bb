"""`adapterdock key`: new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .command import Command, Group
from .console import out, say
from .options import JsonOption

SCHEMA = "adapterdock.key/1"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make keys that sign published adapters.\n\n"
    "Needs the extra `sign`: pip install 'adapterdock[sign]'.",
)

PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="A file with the passphrase of the private key. Nothing asks for one.",
    ),
]


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction] - keeps `new` a subcommand
    pass


@app.command("new", cls=Command)
def new(
    path: Annotated[Path, typer.Argument(help="Where to write the private key.", metavar="PATH")],
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new key pair.

    Writes the private key to PATH (readable only by you) and the public key to PATH.pub, and
    overwrites neither. Sign with PATH; give PATH.pub to those who verify. The key is Ed25519.

    Examples:

      adapterdock key new team.key
      adapterdock key new team.key --passphrase-file passphrase.txt
    """
    from ..registry.signatures.signer import new_pair, read_passphrase

    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    key = new_pair(path, passphrase)
    if as_json:
        out.as_json(SCHEMA, {"private": str(path), "public": str(key.name), "id": key.id})
        return
    say(f"Wrote {path} (private) and {key.name} (public)")
    say(f"Key id {key.id}")
