"""`adapterdock versions`."""

from __future__ import annotations

from .console import err, out
from .options import JsonOption
from .registries import NameArgument, RegistriesOption, RegistryOption, opened
from .render import counted, print_table

SCHEMA = "adapterdock.versions/1"


def versions(
    name: NameArgument,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of an adapter in a registry, newest first.

    Shows which aliases select a version, and what it is marked as.

    Examples:

      adapterdock versions team/refunds
      adapterdock versions team/refunds --registry ./registry --json
    """
    from ..manifests.findings.errors import SourceError
    from ..registry.catalogue.missing import unknown_name
    from ..registry.catalogue.promote import selected
    from ..registry.catalogue.reference import name_of
    from ..registry.catalogue.take_snapshot import known_names

    catalogue, reference = opened(name, registry, manifest)
    listing = catalogue.listing(name_of(reference))
    if not listing.versions:
        known = known_names(catalogue) if catalogue.storage.lists else ()
        names = catalogue.names() if known is None else sorted(known)
        raise SourceError(unknown_name(reference.name, names, catalogue.where))
    aliases = selected(catalogue, listing)
    rows: list[dict[str, object]] = []
    for version in reversed([str(version) for version in listing.versions]):
        mark = catalogue.mark(listing, version)
        rows.append(
            {
                "version": version,
                "aliases": [alias for alias, chosen in aliases.items() if chosen == version],
                "yanked": mark is not None and mark.yanked,
                "deprecated": mark is not None and mark.deprecated,
                "why": None if mark is None else mark.why,
            }
        )
    if as_json:
        data = {"registry": catalogue.storage.url, "id": catalogue.id, "name": reference.name}
        out.as_json(SCHEMA, {**data, "versions": rows})
        return
    table = [
        (
            str(row["version"]),
            ",".join(alias for alias, chosen in aliases.items() if chosen == row["version"]),
            ",".join(word for word in ("yanked", "deprecated") if row[word]),
            str(row["why"] or ""),
        )
        for row in rows
    ]
    print_table(("version", "aliases", "marks", "why"), table, out)
    err.line(f"{counted(len(rows), 'version')} of {reference.name}")
