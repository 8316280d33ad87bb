"""What is said of a registry, a name or a version that is not there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ...manifests.findings import registry as codes
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import did_you_mean
from ...manifests.language.published_names import wrong_alias
from ..storages.layout import IDENTITY

SHOWN = 5
"""How many versions (the newest) and aliases are named."""


def no_registry(url: str) -> Finding:
    """On a place without a registry."""
    return codes.NOT_A_REGISTRY.finding(
        "There is no registry",
        Where(file=url),
        expected=IDENTITY,
        hint="Check the registry's URL, or create one there with "
        f"`adapterdock registry init {shlex.quote(url)}`.",
    )


def unknown_name(name: str, names: Sequence[str], where: Where) -> Finding:
    """On a name that has no version; ``names`` have some."""
    return codes.NOT_PUBLISHED.finding(
        f"{name} is not published",
        where,
        hint=did_you_mean(name, names) or "Find its name with `adapterdock search`.",
    )


def not_published(
    name: str, wanted: str, versions: Sequence[str], aliases: Sequence[str], where: Where
) -> Finding:
    """On a version, a range or an alias that selects nothing, with what there is."""
    shown = ", ".join(versions[-SHOWN:])
    hint = "Name a version or an alias that there is; `adapterdock versions` lists them."
    if wrong_alias(wanted) is None:
        set_it = f"`adapterdock promote REGISTRY/{name}@{versions[-1]} {wanted}`"
        hint = did_you_mean(wanted, aliases) or f"Set the alias with {set_it}, or name a version."
    return codes.NOT_PUBLISHED.finding(
        f"{name}@{wanted} is not published",
        where,
        found=f"{shown}; aliases: {', '.join(aliases[:SHOWN]) or 'none'}",
        hint=hint,
    )
