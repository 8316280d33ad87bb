"""`adapterdock history`."""

from __future__ import annotations

from .console import err, out
from .options import JsonOption
from .promote import AliasArgument
from .registries import NameArgument, RegistriesOption, RegistryOption, never_existed, opened
from .render import counted, print_table

SCHEMA = "adapterdock.history/1"


def history(
    name: NameArgument,
    alias: AliasArgument,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every value of an alias: who, when, from what, and why.

    Examples:

      adapterdock history team/refunds prod
      adapterdock history team/refunds prod --json | jq '.values[-1]'
    """
    from ..registry.catalogue.promote import history as values_of
    from ..registry.catalogue.reference import name_of

    catalogue, reference = opened(name, registry, manifest)
    values = values_of(catalogue, name_of(reference), alias)
    if not values:
        raise never_existed(catalogue, reference.name, alias)
    if as_json:
        data = {"name": reference.name, "alias": alias, "values": [vars(one) for one in values]}
        out.as_json(SCHEMA, data)
        return
    rows = [
        (
            str(one.serial),
            one.at or "",
            one.by or "",
            one.before or "-",
            one.version or "-",
            one.why or "",
        )
        for one in values
    ]
    print_table(("value", "when", "who", "from", "to", "why"), rows, out)
    err.line(f"{counted(len(values), 'value')} of {reference.name}@{alias}")
