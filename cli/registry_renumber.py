"""`adapterdock registry renumber`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .console import out, say
from .options import JsonOption
from .registries import PlaceArgument, RegistriesOption, manifest_of
from .render import counted, print_findings

SCHEMA = "adapterdock.registry-renumber/1"


def renumber(
    registry: PlaceArgument,
    keep: Annotated[
        Literal["ours", "theirs"] | None,
        typer.Option(
            "--keep",
            metavar="SIDE",
            help="Whose numbers stay, in git's words: ours or theirs (default: the branch that is "
            "pushed, else ours).",
        ),
    ] = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """In a git checkout, make one history of two branches that used the same numbers.

    Run it when `git merge`, `git pull` or `git rebase` stops with conflicts in the registry, or
    after a merge that `registry verify` complains about. Promotions, marks, rules and journal lines
    of one branch are appended after those of the other one. The result is put into the index;
    commit it yourself. Signatures of what got another number are removed; sign it again.

    Examples:

      adapterdock registry renumber ./registry
      adapterdock registry renumber ./registry --keep theirs
    """
    from ..registry.catalogue.renumber_checkout import renumber_checkout
    from ..registry.registries import open_named

    catalogue = open_named(registry, manifest_of(manifest))
    done = renumber_checkout(catalogue, keep)
    if as_json:
        data = {
            "url": catalogue.storage.url,
            "kept": done.winner,
            "moved": [vars(move) for move in done.moved],
            "changed": list(done.changed),
            "findings": [finding.as_dict() for finding in done.findings],
        }
        out.as_json(SCHEMA, data)
        return
    print_findings(done.findings, out)
    if not done.changed:
        say("Nothing to renumber")
        return
    say(f"Renumbered {counted(len(done.moved), 'file')}; the numbers of {done.winner} stayed")
    for move in done.moved:
        if not move.before.startswith("journal/"):
            say(f"{move.before} -> {move.after}", indent=2)
    say("Commit the result, and run `adapterdock registry verify`")
