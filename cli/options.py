"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MANIFEST = Path("adapters.yaml")

ManifestArgument = Annotated[
    Path, typer.Argument(help="The manifest.", show_default="adapters.yaml", metavar="MANIFEST")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="URL", help="Another base model, for this run (recorded)."),
]
DtypeOption = Annotated[
    str | None,
    typer.Option("--dtype", metavar="DTYPE", help="Another dtype for the base, for this run."),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A platform's policy, on top of the manifest's and $ADAPTERDOCK_POLICY.",
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Touch no network.")]
FrozenOption = Annotated[
    bool, typer.Option("--frozen", help="Refuse a missing, stale or partial lock.")
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--accept", metavar="CODE", help="Accept this unchecked finding (may be repeated)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON with a versioned schema.")]
