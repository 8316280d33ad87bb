"""The plan of a method that sits on modules: where every tensor of its file goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..files.facts import AdapterPlan, Layout, SitePlan, TensorInfo
from .keys import Keys, Roles, factor_by
from .method import MakePlan
from .naming import Naming
from .patterns import Patterns
from .places import Places
from .tuner_config import TunerConfig

MakeSite = Callable[[str, str, Mapping[str, str]], SitePlan]
"""``make_site(author, live, tensors)``: the module's name in the file and in the live model, and
the file's tensors for it by role. May raise ``PatternError``."""


SitesOf = Callable[[Any, Patterns], MakeSite]
"""``sites_of(config, patterns)``; ``config`` is the method's typed view."""
AddSites = Callable[[list[SitePlan], Layout | None], list[SitePlan]]


def on_modules(
    roles: Roles, sites_of: SitesOf, add: AddSites = lambda sites, layout: sites
) -> MakePlan:
    """The planner of a method that has one site for each adapted module, and those that ``add``
    adds."""
    factor = factor_by(roles)

    def plan(
        config: TunerConfig,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns,
    ) -> tuple[AdapterPlan, Naming]:
        keys = Keys.split(tensors, factor)
        naming = Naming.find(keys.modules, layout)
        modules, repeated = by_live_name(keys.factors, naming)
        make_site = sites_of(config, patterns)
        sites = [make_site(author, live, parts) for live, (author, parts) in modules.items()]
        return plan_of(config, layout, naming, keys, add(sites, layout), repeated), naming

    return plan


def by_live_name(
    factors: Mapping[str, Mapping[str, str]], naming: Naming
) -> tuple[dict[str, tuple[str, Mapping[str, str]]], list[str]]:
    """{live module: (author module, its tensors)}; and the keys of author modules that have the
    live name of an earlier one."""
    found: dict[str, tuple[str, Mapping[str, str]]] = {}
    repeated: list[str] = []
    for author, parts in factors.items():
        if found.setdefault(naming.live(author), (author, parts))[0] != author:
            repeated.extend(parts.values())
    return found, repeated


def plan_of(
    config: TunerConfig,
    layout: Layout | None,
    naming: Naming,
    keys: Keys,
    sites: Iterable[SitePlan],
    leftovers: Iterable[str] = (),
) -> AdapterPlan:
    """The plan of these ``sites``, with places for the keys that are not factors; keys without a
    place are added to the ``leftovers``."""
    found = tuple(sites)
    places = Places(config, layout, naming, frozenset(site.module for site in found))
    for name, key in keys.others.items():
        places.put(name, key, keys.others)
    return places.plan(found, (*keys.odd, *leftovers))
