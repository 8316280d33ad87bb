"""The fields of a config that name modules, with today's names in place of an older version's.

What a field selects is asked of the old names, one by one. A field that would select the same of
today's names stays as it is. Any other becomes a list of endings that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..files.facts import Layout
from .ia3 import is_feedforward
from .lora_parameters import selected as selected_parameters
from .patterns import Patterns, PatternTable
from .suffixes import endings_of
from .targets import TargetSelection
from .tuner_config import LAYER_FIELDS

Names = Sequence[tuple[str, str]]
"""(the file's name, today's) of modules."""


@dataclass(frozen=True)
class Renamed:
    """What is known of an adapter's names.

    Attributes:
        modules: The modules of the base that the method can adapt.
        sites: The adapted modules.
        saved: The modules that the file stores completely.
        tokens: The embeddings with trained rows.
        owners: The modules with parameters that a config can name.
        parameters: Today's parameters that the config selects under names of modules.
        ranks: The rank of fused factors, by module or parameter.
        alphas: Their alpha.
    """

    modules: Names
    sites: Names
    saved: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    owners: Names = ()
    parameters: Sequence[str] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)


def converted(
    config: Mapping[str, Any],
    names: Renamed,
    layout: Layout,
    selection: TargetSelection,
    patterns: Patterns,
    tables: Iterable[str],
) -> Mapping[str, Any]:
    """``config`` for today's names. ``tables`` are its maps from patterns to values. Raises
    ``PatternError``."""
    new = dict(config)
    new |= _targets(config, names, layout, selection)
    new |= _parameters(config, names, layout)
    sites = [*names.sites, *((key, key) for key in {*names.ranks, *names.alphas})]
    fused = {"rank_pattern": names.ranks, "alpha_pattern": names.alphas}
    for table in dict.fromkeys(("rank_pattern", "alpha_pattern", *tables)):
        new |= _table(config, table, sites, fused.get(table, {}), patterns)
    if saved := _by_ending(config.get("modules_to_save") or (), names.saved):
        new["modules_to_save"] = list(saved)
    rows = config.get("trainable_token_indices")
    if isinstance(rows, Mapping):
        of_entry = cast("Mapping[str, Any]", rows)
        found = _by_ending(of_entry, names.tokens)
        new["trainable_token_indices"] = {today: of_entry[old] for today, old in found.items()}
    new |= _feedforward(config, names, layout, patterns)
    return new


def _targets(
    config: Mapping[str, Any], names: Renamed, layout: Layout, selection: TargetSelection
) -> dict[str, Any]:
    targets = config.get("target_modules")
    if targets is None:
        return {}
    if selection.is_all_linear:
        return _exclude(config, names, layout, selection)
    wanted = list(dict.fromkeys(new for old, new in names.modules if selection.selects(old)))
    unchanged = {today for _, today in names.modules if selection.selects(today)}
    if set(wanted) == unchanged:
        if isinstance(targets, str):
            return {} if wanted else {"target_modules": []}
        used = [t for t in cast("list[str]", targets) if any(_ends(n, t) for n in wanted)]
        return {"target_modules": used}
    emptied = {name: None for name in ("exclude_modules", *LAYER_FIELDS) if config.get(name)}
    return {**emptied, "target_modules": endings_of(wanted, layout.modules)}


def _exclude(
    config: Mapping[str, Any], names: Renamed, layout: Layout, selection: TargetSelection
) -> dict[str, Any]:
    if not config.get("exclude_modules"):
        return {}
    excluded = [today for old, today in names.modules if selection.excludes(old)]
    if set(excluded) == {today for _, today in names.modules if selection.excludes(today)}:
        return {}
    return {"exclude_modules": endings_of(excluded, layout.modules)}


def _parameters(config: Mapping[str, Any], names: Renamed, layout: Layout) -> dict[str, Any]:
    """``target_parameters``: those of before by today's names, and those that were modules."""
    said = cast("list[str]", config.get("target_parameters") or [])
    every = {live: list(module.parameters) for live, module in layout.modules.items()}

    def chosen(owners: Names) -> list[str]:
        return [
            f"{today}.{name}"
            for owner, today in owners
            for name in selected_parameters(owner, said, every.get(today, ()))
        ]

    before = chosen(names.owners)
    wanted = list(dict.fromkeys([*before, *names.parameters]))
    now = chosen([(today, today) for _, today in names.owners])
    if not wanted or (not names.parameters and set(before) == set(now)):
        return {}
    known = [f"{live}.{name}" for live, own in every.items() for name in own]
    return {"target_parameters": endings_of(wanted, known)}


def _table(
    config: Mapping[str, Any],
    field: str,
    sites: Names,
    fused: Mapping[str, Any],
    patterns: Patterns,
) -> dict[str, Any]:
    said = config.get(field) or {}
    if not isinstance(said, Mapping) or not (said or fused):
        return {}
    table = PatternTable(cast("Mapping[str, Any]", said), patterns)
    none = object()
    wanted = {today: table.get(old, none) for old, today in sites} | dict(fused)
    if all(table.get(today, none) == value for today, value in wanted.items()):
        return {}
    new: dict[str, Any] = {}
    for value in wanted.values():
        if value is not none and value not in new.values():
            names = [today for today, other in wanted.items() if other == value]
            new |= dict.fromkeys(endings_of(names, wanted), value)
    return {field: new}


def _by_ending(entries: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """{today's ending: the entry}, of entries that name the ends of complete paths."""
    found: dict[str, str] = {}
    for entry in entries:
        meant = [today for old, today in names.items() if old.endswith(entry)]
        kept = all(today.endswith(entry) for today in meant)
        found |= dict.fromkeys([entry] if kept else meant, entry)
    return found


def _feedforward(
    config: Mapping[str, Any], names: Renamed, layout: Layout, patterns: Patterns
) -> dict[str, Any]:
    """IA3's ``feedforward_modules``."""
    said = config.get("feedforward_modules")
    if not said or not isinstance(said, str | list):
        return {}
    by = tuple(cast("list[str]", said)) if isinstance(said, list) else said
    before = [today for old, today in names.sites if is_feedforward(by, old, patterns)]
    now = [today for _, today in names.sites if is_feedforward(by, today, patterns)]
    return {} if before == now else {"feedforward_modules": endings_of(before, layout.modules)}


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
