"""`adapterdock site`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import EXIT_UNCHECKED
from .console import err, out, say, status
from .options import JsonOption, OfflineOption, PolicyOption
from .registries import RegistriesOption, manifest_of
from .render import counted

if TYPE_CHECKING:
    from .pages.facts import Site
    from .pages.heat_of import Wanted
    from .pages.out_folder import Written

SCHEMA = "adapterdock.site/1"
HEAT = ("here", "all", "none")
SHOWN = 5
"""Problems that are printed; all of them are on the site."""


def site(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Registries (URL, folder or configured name), manifests, and folders, which are "
            "searched for manifests, adapters and registries.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Write the site there: a new or empty folder, or that of an earlier site.",
            show_default=False,
        ),
    ],
    title: Annotated[
        str | None,
        typer.Option(
            "--title",
            metavar="TEXT",
            help="Title of the site (default: that of the only registry).",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base",
            metavar="SOURCE",
            help="Compare all adapters with this base too, in the matrix (repeat for more).",
        ),
    ] = None,
    heat: Annotated[
        str,
        typer.Option(
            "--heat",
            metavar="here|all|none",
            help="Draw where adapters act: those whose weights are on this machine, all "
            "(downloads the others), or none.",
        ),
    ] = "here",
    policy: PolicyOption = None,
    manifest: RegistriesOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a catalogue of adapters as a static web site.

    The site needs no server: open its index.html, or copy the folder to any web server. It lists
    the adapters, searches and filters them, and has a page for each with its versions, aliases,
    metrics, signatures, where it acts and which bases it fits. The same input gives the same bytes.
    Exit status 3 if something could not be read; the site then lists it, and has the rest.

    Needs the extra `site`: pip install 'adapterdock[site]'.

    Examples:

      adapterdock site ./registry --out site
      adapterdock site team --base hf://org/name --out site --title 'Team adapters'
      adapterdock site . --out ../site
    """
    from ..registry.store.store import Store
    from .pages.find_inputs import find_inputs
    from .pages.heat_of import Measuring
    from .pages.out_folder import write_site
    from .pages.read_site import read_site
    from .pages.render import render, require_library

    wanted = _heat(heat)
    require_library()
    found = find_inputs(inputs)
    with status("Reading adapters"):
        read = read_site(
            found,
            Measuring(wanted, Store.default(), offline),
            bases=tuple(base or ()),
            title=title,
            file=manifest_of(manifest),
            policy=policy,
        )
        written = write_site(folder, render(read))
    if as_json:
        out.as_json(SCHEMA, _describe(folder, read, written, found.skipped))
    else:
        _print(folder, read, written, found.skipped)
    if read.unread:
        raise typer.Exit(EXIT_UNCHECKED)


def _heat(text: str) -> Wanted:
    from ..manifests.findings import language
    from ..manifests.findings.errors import UsageError
    from ..manifests.language.names import did_you_mean

    for known in ("here", "all", "none"):
        if text == known:
            return known
    raise UsageError(
        language.NOT_A_CHOICE.finding(
            "Invalid --heat", found=text, expected=", ".join(HEAT), hint=did_you_mean(text, HEAT)
        )
    )


def _describe(folder: Path, read: Site, written: Written, skipped: int) -> dict[str, Any]:
    return {
        "out": str(folder),
        "title": read.title,
        "adapters": len(read.adapters),
        "bases": len(read.matrix.bases),
        "compositions": len(read.compositions),
        "files": vars(written),
        "skipped": skipped,
        "problems": [vars(one) for one in read.problems],
    }


def _print(folder: Path, read: Site, written: Written, skipped: int) -> None:
    say(
        f"Wrote {folder / 'index.html'}: {counted(len(read.adapters), 'adapter')}, "
        f"{counted(len(read.matrix.bases), 'base')}, "
        f"{counted(len(read.compositions), 'composition')}"
    )
    files = f"{written.written} written, {written.unchanged} unchanged, {written.removed} removed"
    err.line(f"Files: {files}")
    if skipped:
        err.line(f"Skipped {counted(skipped, 'YAML file')} without the keys of a manifest")
    for one in read.problems[:SHOWN]:
        err.line(f"{one.what}: {one.message} [{one.code}]")
    if len(read.problems) > SHOWN:
        err.line(f"{len(read.problems) - SHOWN} more: see {folder / 'problems.html'}")
