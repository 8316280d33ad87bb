"""`adapterdock search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import EXIT_UNCHECKED, EXIT_WRONG
from .console import err, out, status
from .options import JsonOption, OfflineOption, PolicyOption
from .registries import RegistriesOption, manifest_of
from .render import counted, print_findings, print_table

if TYPE_CHECKING:
    from ..registry.records.thin_row import ThinRow
    from ..registry.search import Searched

SCHEMA = "adapterdock.search/1"
LIMIT = 50


def search(
    text: Annotated[
        str,
        typer.Argument(
            metavar="[TEXT]",
            help="Words of the name, tags, description, owner or base; their first letters do.",
            show_default=False,
        ),
    ] = "",
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="URL|NAME",
            help="Search this one (default: all that are configured).",
        ),
    ] = None,
    fits: Annotated[
        str | None,
        typer.Option(
            "--fits",
            metavar="BASE",
            help="Only adapters of this base: its source, or a manifest. Compares fingerprints.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="METHOD", help="Only this method: LORA.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="ID", help="Only this licence: Apache-2.0.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="Only with this tag (repeat).")
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=0, help="Show so many of each registry; 0: all."),
    ] = LIMIT,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the adapters of registries.

    Reads a list of all versions that the registry has, and keeps an index of it in the cache. No
    adapter is read. A registry that cannot be reached is searched as it was last time. Exit status
    3 if a registry could not be searched, 1 if none could.

    Examples:

      adapterdock search refunds
      adapterdock search --fits ./base --tag support
      adapterdock search --fits adapters.yaml --json | jq -r '.registries[].versions[].name'
    """
    from ..registry.catalogue.search_index import Query
    from ..registry.search import search_all
    from ..registry.store.store import Store

    base = None
    if fits is not None:
        from ..registry.fits import measured_base

        with status(f"Reading {fits}"):
            base = measured_base(fits, policy=policy, offline=offline)
    query = Query(text, method, licence, tuple(tag or ()), limit or None)
    file = manifest_of(manifest)
    with status("Searching"):
        found = search_all(
            query, Store.default(), registry=registry, file=file, base=base, offline=offline
        )
    if as_json:
        out.as_json(SCHEMA, {"text": text, "registries": [_describe(one) for one in found]})
    else:
        _print(found)
        print_findings([problem for one in found for problem in one.problems], err)
    failed = [one for one in found if one.hits is None]
    if failed:
        raise typer.Exit(EXIT_WRONG if len(failed) == len(found) else EXIT_UNCHECKED)


def _describe(one: Searched) -> dict[str, Any]:
    hits = one.hits
    return {
        "name": one.name,
        "url": one.url,
        "id": one.id,
        "as_of": one.as_of,
        "total": None if hits is None else hits.total,
        "unknown": None if hits is None else hits.unknown,
        "newer": None if hits is None else hits.newer,
        "versions": [] if hits is None else [_row(row) for row in hits.rows],
        "problems": [problem.as_dict() for problem in one.problems],
    }


def _row(row: ThinRow) -> dict[str, Any]:
    from ..registry.records.thin_row import base_names

    fields = {key: value for key, value in vars(row).items() if key not in ("base", "marks")}
    marks = {word: word in row.marks for word in ("yanked", "deprecated")}
    return {**fields, "tags": list(row.tags), **marks, "base": base_names(row.base)}


def _print(found: Sequence[Searched]) -> None:
    from ..registry.records.thin_row import base_names

    table = [
        (
            f"{one.name}/{row.name}@{row.version}" if one.name else f"{row.name}@{row.version}",
            f"{row.method} {row.rank}" if row.rank else row.method,
            ",".join(row.marks),
            row.licence or "",
            next(iter(base_names(row.base)), ""),
            ", ".join(row.tags)
            + (": " if row.tags and row.description else "")
            + (row.description or ""),
        )
        for one in found
        if one.hits is not None
        for row in one.hits.rows
    ]
    if table:
        print_table(("adapter", "method", "marks", "licence", "base", "about"), table, out)
    for one in found:
        if one.as_of is not None:
            err.line(f"{one.name or one.url} cannot be reached: searched as of {one.as_of}")
    for one in found:
        if one.hits is not None and one.hits.newer:
            needs = "needs" if one.hits.newer == 1 else "need"
            what = f"{counted(one.hits.newer, 'version')} of {one.name or one.url}"
            err.line(f"{what} {needs} a newer adapterdock: not searched")
    total = sum(one.hits.total for one in found if one.hits is not None)
    unknown = sum(one.hits.unknown for one in found if one.hits is not None)
    more = "" if total == len(table) else f", of which {len(table)} are shown (--limit)"
    err.line(f"{counted(total, 'version')} found{more}")
    if unknown:
        what = f"{counted(unknown, 'other version')} recorded too little of the base"
        err.line(f"{what}: cannot tell whether they fit")
