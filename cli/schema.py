"""`adapterdock schema`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..manifests.schema_file import SCHEMA_FILE


def schema(
    path: Annotated[
        bool, typer.Option("--path", help="Print the path of the installed file instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of manifests, for editors.

    It is the one of this version, and needs no network. An editor that reads it shows what a key
    means, completes keys, and marks mistakes while you type. Write it into a file with the shell's
    `>`.

    Examples:

      adapterdock schema
      adapterdock schema --path
    """
    if path:
        print(SCHEMA_FILE)
    else:
        sys.stdout.write(SCHEMA_FILE.read_text(encoding="utf-8"))
