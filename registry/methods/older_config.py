"""The fields of a config that name modules, with today's names in place of an older version's.

What a field selects is asked of the old names, one by one; where it would select the same of
today's, it stays as it is, else it becomes a list of endings that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..files.facts import Layout
from .ia3 import is_feedforward
from .lora_parameters import selected as selected_parameters
from .patterns import Patterns, PatternTable
from .suffixes import endings_of
from .targets import TargetSelection
from .tuner_config import LAYER_FIELDS, TunerConfig


@dataclass
class Renamed:
    """What is known of an adapter's names: (old, today's) of every module of the base that the
    method can adapt, of the adapted modules, of the modules stored whole, of embeddings with
    trained rows, and of the modules whose parameters are adapted by name; and what of the fused
    parameters the config selects, with the rank and alpha of their factors."""

    modules: Sequence[tuple[str, str]]
    sites: Sequence[tuple[str, str]]
    saved: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    owners: Sequence[tuple[str, str]] = ()
    parameters: Sequence[str] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)


def converted(
    config: Mapping[str, Any],
    typed: TunerConfig,
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
    new |= _saved(config, names)
    new |= _tokens(config, names)
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
    as_it_is = {today for _, today in names.modules if selection.selects(today)}
    if set(wanted) == as_it_is:
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
    kept_out = [today for old, today in names.modules if selection.excludes(old)]
    if set(kept_out) == {today for _, today in names.modules if selection.excludes(today)}:
        return {}
    return {"exclude_modules": endings_of(kept_out, layout.modules)}


def _parameters(config: Mapping[str, Any], names: Renamed, layout: Layout) -> dict[str, Any]:
    """``target_parameters``: those of before, by today's names, and those that were modules."""
    said = cast("list[str]", config.get("target_parameters") or [])

    def chosen(
        owners: Iterable[tuple[str, str]], by: Callable[[tuple[str, str]], str]
    ) -> list[str]:
        return [
            f"{pair[1]}.{name}"
            for pair in owners
            if pair[1] in layout.modules
            for name in selected_parameters(
                by(pair), said, list(layout.modules[pair[1]].parameters)
            )
        ]

    before = chosen(names.owners, lambda pair: pair[0]) if said else []
    wanted = list(dict.fromkeys([*before, *names.parameters]))
    if not wanted or (
        not names.parameters and set(before) == set(chosen(names.owners, lambda pair: pair[1]))
    ):
        return {}
    every = [f"{name}.{one}" for name, m in layout.modules.items() for one in m.parameters]
    return {"target_parameters": endings_of(wanted, every)}


def _table(
    config: Mapping[str, Any],
    field: str,
    sites: Sequence[tuple[str, str]],
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
    values: list[Any] = []
    for value in wanted.values():
        if value is not none and value not in values:
            values.append(value)
    for value in values:
        names = [today for today, one in wanted.items() if one is not none and one == value]
        new |= dict.fromkeys(endings_of(names, wanted), value)
    return {field: new}


def _saved(config: Mapping[str, Any], names: Renamed) -> dict[str, Any]:
    said = cast("list[str]", config.get("modules_to_save") or [])
    new: dict[str, None] = {}
    for entry in said:
        meant = [today for old, today in names.saved.items() if old.endswith(entry)]
        if all(today.endswith(entry) for today in meant):
            new[entry] = None
        else:
            new |= dict.fromkeys(meant)
    return {} if list(new) == said or not said else {"modules_to_save": list(new)}


def _tokens(config: Mapping[str, Any], names: Renamed) -> dict[str, Any]:
    said = config.get("trainable_token_indices")
    if not isinstance(said, Mapping):
        return {}
    new: dict[str, Any] = {}
    for entry, rows in cast("Mapping[str, Any]", said).items():
        meant = [today for old, today in names.tokens.items() if old.endswith(entry)]
        if all(today.endswith(entry) for today in meant):
            new[entry] = rows
        else:
            new |= dict.fromkeys(meant, rows)
    return {"trainable_token_indices": new}


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
    if before == now:
        return {}
    return {"feedforward_modules": endings_of(before, layout.modules)}


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
