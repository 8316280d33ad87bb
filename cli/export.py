"""`adapterdock export`."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    JsonOption,
    ManifestArgument,
    OfflineOption,
    PolicyOption,
    complete_adapter,
    open_manifest_argument,
)
from .progress import shown_progress
from .render import counted, human_bytes, print_findings
from .run import hushed

if TYPE_CHECKING:
    from ..serving.export.export import Done

SCHEMA = "adapterdock.export-result/1"


class Format(str, Enum):
    """What --format takes."""

    peft = "peft"
    gguf = "gguf"
    mlx = "mlx"


@hushed()
def export(
    out_text: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")
    ],
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    form: Annotated[
        Format,
        typer.Option("--format", help="PEFT folders, GGUF files (llama.cpp) or folders of mlx-lm."),
    ] = Format.peft,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="Write only this adapter or composition; others stay as they are (repeat for "
            "more).",
            autocompletion=complete_adapter,
        ),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Export into DIR also where it has the export of another manifest, and replace "
            "that.",
        ),
    ] = False,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the adapters for servers that read folders.

    Needs a current lock. Every file is verified and copied: nothing in DIR links to a source or to
    the cache. Compositions are written as one adapter each. Each adapter is replaced in one step.
    `adapterdock-export.json` in DIR lists every file with its sha256; the next export of the same
    manifest replaces and removes only what it lists.

    Examples:

      adapterdock export --out ./served
      adapterdock export team.yaml --out /mnt/loras --only refunds
      adapterdock export --format gguf --out ./gguf
    """
    from ..registry.files.disk import output_path
    from ..serving.export.export import export as write

    folder = output_path(out_text)
    file = open_manifest_argument(manifest, None, None, policy)
    accepted = accept or ()
    with shown_progress(f"Exporting to {folder}") as progress:
        done = write(
            file,
            folder,
            form=form.value,
            only=only or (),
            take_over=take_over,
            policy=policy,
            accept=accepted,
            offline=offline,
            progress=progress,
        )
    print_findings(done.notes, err, accepted)
    if as_json:
        outcome = done.outcome
        data = {
            "folder": str(folder),
            "written": list(outcome.written),
            "unchanged": list(outcome.unchanged),
            "removed": list(outcome.removed),
            "record": outcome.record.model_dump(mode="json", by_alias=True),
        }
        out.as_json(SCHEMA, data)
        return
    _print(done, folder, form)


def _print(done: Done, folder: Path, form: Format) -> None:
    outcome = done.outcome
    rows = outcome.record.adapters
    for name in (*outcome.written, *outcome.unchanged):
        size = human_bytes(sum(file.size for file in rows[name].files.values()))
        state = "written" if name in outcome.written else "unchanged"
        say(f"{folder / rows[name].entry}: {state}, {size}, {rows[name].digest}")
    if outcome.removed:
        say(f"Removed: {', '.join(outcome.removed)}")
    say(f"{folder} holds {counted(len(rows), 'adapter')}")
    places = {
        name: shlex.quote(str(folder / row.entry))
        for name, row in rows.items()
        if row.format == form.value
    }
    if not places:
        return
    base = shlex.quote(done.base or "BASE")
    if form is Format.peft:
        rank = max((row.rank or 0 for row in rows.values()), default=0)
        pairs = " ".join(f"{name}={place}" for name, place in places.items())
        say(f"vLLM: --enable-lora --max-lora-rank {_limit(rank)} --lora-modules {pairs}")
    elif form is Format.gguf:
        say(f"llama.cpp: llama-server -m BASE.gguf --lora {next(iter(places.values()))}")
    else:
        place = next(iter(places.values()))
        say(f"mlx-lm: mlx_lm.generate --model {base} --adapter-path {place}")


def _limit(rank: int) -> int:
    """The smallest --max-lora-rank of vLLM that this rank fits in; else the rank itself."""
    return next((limit for limit in (1, 8, 16, 32, 64, 128, 256, 320, 512) if limit >= rank), rank)
