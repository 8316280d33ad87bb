"""The plan of a method that sits on modules: where every tensor of its file goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..files.facts import AdapterPlan, Layout, SitePlan, TensorInfo
from .keys import Keys, Roles
from .naming import Naming
from .places import Places
from .tuner_config import TunerConfig

MakeSite = Callable[[str, str, Mapping[str, str]], SitePlan]
"""``make_site(author, live, tensors)``: the module's name in the file and in the live model, and
the file's tensors for it by role."""


def plan_on_modules(
    config: TunerConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    roles: Roles,
    make_site: MakeSite,
) -> tuple[AdapterPlan, Naming]:
    """Where every tensor goes, and how the file's names became live ones.

    Sites are in the file's order and bear live names where there is a ``layout``, the file's own
    where there is none. Decides places only; whether they fit is asked elsewhere. Raises what
    ``make_site`` raises (``PatternError``).
    """
    keys = Keys.split(tensors, roles)
    naming = Naming.find(keys.modules, layout)
    sites: dict[str, SitePlan] = {}
    leftovers: list[str] = []
    for author, parts in keys.factors.items():
        live = naming.live(author)
        if live in sites:  # two names in the file for one live module
            leftovers.extend(parts.values())
            continue
        sites[live] = make_site(author, live, parts)
    return plan_of(config, layout, naming, keys, sites.values(), leftovers), naming


def plan_of(
    config: TunerConfig,
    layout: Layout | None,
    naming: Naming,
    keys: Keys,
    sites: Iterable[SitePlan],
    leftovers: Iterable[str] = (),
) -> AdapterPlan:
    """The plan of these ``sites``, with places for the keys that are no factors; what has none is
    added to the ``leftovers``."""
    found = tuple(sites)
    places = Places(config, layout, naming, frozenset(site.module for site in found))
    for name, key in keys.others.items():
        places.put(name, key, keys.others)
    return AdapterPlan(
        sites=found,
        saved=places.saved,
        biases=places.biases,
        embeddings=places.embeddings,
        leftovers=(*keys.odd, *leftovers, *places.leftovers),
    )
