"""`adapterdock registries`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .console import err, out
from .options import JsonOption
from .registries import RegistriesOption, manifest_of
from .render import counted, print_table

if TYPE_CHECKING:
    from ..registry.registries import Reached

SCHEMA = "adapterdock.registries/1"


def registries(manifest: RegistriesOption = None, as_json: JsonOption = False) -> None:
    """List the registries that are configured.

    They are those under `registries` of the manifest; where it names none, those of `config.toml`
    ($ADAPTERDOCK_CONFIG). Each is opened, and a row says why one cannot be.

    Examples:

      adapterdock registries
      adapterdock registries --json | jq '.registries[] | select(.problem != null)'
    """
    from ..registry.access.configured import configured
    from ..registry.registries import reach

    rows = [_describe(found) for found in reach(configured(manifest_of(manifest)).values())]
    if as_json:
        out.as_json(SCHEMA, {"registries": rows})
        return
    if rows:
        table = [
            (
                row["name"],
                row["title"] or "",
                row["id"] or "",
                row["from"],
                row["url"] + (f": {row['problem']}" if row["problem"] else ""),
            )
            for row in rows
        ]
        print_table(("name", "title", "id", "from", "url"), table, out)
    err.line(f"{counted(len(rows), 'registry', 'registries')} configured")


def _describe(found: Reached) -> dict[str, Any]:
    from ..registry.sources.failures import scrub

    row, catalogue = found.row, found.catalogue
    problem = found.problems[0] if found.problems else None
    return {
        "name": row.name,
        "url": scrub(str(row.source)),
        "from": str(row.where) or "the manifest",
        "id": None if catalogue is None else catalogue.id,
        "title": None if catalogue is None else catalogue.title,
        "problem": None if problem is None else problem.message,
        "code": None if problem is None else problem.code,
    }
