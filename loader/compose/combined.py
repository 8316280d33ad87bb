"""Adapters combined by a recipe: one pair at each module, the biases, the saved modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.combine_methods import COMBINE_METHODS
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight, weight_at
from ..adapter.adapter import Built
from .members import Member, member_of
from .methods import Contribution, Term, combine, merge
from .pairs import Pair, PairPlace


@dataclass(frozen=True, eq=False)
class Combined:
    """The parts of one adapter. Every pair has scale 1; ``biases`` replace those of the base,
    ``replaced`` are {module: {path under it: tensor}}."""

    sites: Mapping[PairPlace, Pair]
    biases: Mapping[str, torch.Tensor] = field(default_factory=dict)
    replaced: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def ranks(self) -> Mapping[str, int]:
        return {place.module: pair.rank for place, pair in self.sites.items()}


def combine_members(
    recipe: Composition,
    weights: Mapping[str, Weight],
    adapters: Mapping[str, Built],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Combined:
    """Combine the adapters in ``weights`` by ``recipe``, float32 on the CPU. Raises
    :class:`RoutingError` for an adapter that is not made of pairs, and for factors of different
    ranks where they are to be added."""
    members: list[Member] = []
    problems: list[Finding] = []
    for name in weights:
        try:
            members.append(member_of(adapters[name], where))
        except RoutingError as error:
            problems += error.findings
    if problems:
        raise RoutingError(*problems)
    if recipe.svd_rank is None:  # PEFT's: the largest rank of any member
        largest = max((member.rank for member in members), default=1)
        recipe = recipe.model_copy(update={"svd_rank": largest})
    weighted = list(zip(members, weights.values(), strict=True))
    places = {m: place for member in reversed(members) for m, place in member.places.items()}
    sites: dict[PairPlace, Pair] = {}
    on = COMBINE_METHODS[recipe.combine].on
    with torch.no_grad():
        for module, place in places.items():
            parts = [
                Contribution(member.pairs[module], weight_at(weight, module), member.digest)
                for member, weight in weighted
                if module in member.pairs
            ]
            if on == "ranks":
                parts = [part for part in parts if part.weight]
            if on == "factors" and len({part.pair.rank for part in parts}) > 1:
                problems.append(_other_ranks(recipe, module, members, where))
            elif parts and not problems:
                sites[place] = combine(recipe, place, parts)
        if problems:
            raise RoutingError(*problems)
        biases = _biases(recipe, weighted)
    replaced = {name: found for member in members for name, found in member.replaced.items()}
    return Combined(sites, biases, replaced)


def _biases(
    recipe: Composition, weighted: Sequence[tuple[Member, Weight]]
) -> dict[str, torch.Tensor]:
    """The base's biases plus the combined differences that the members add to them."""
    found: dict[str, torch.Tensor] = {}
    for module in dict.fromkeys(name for member, _ in weighted for name in member.biases):
        having = [(one, weight) for one, weight in weighted if module in one.biases]
        old = having[0][0].biases[module][1]
        terms = [
            Term(member.biases[module][0] - old, weight_at(weight, module), member.digest)
            for member, weight in having
        ]
        found[module] = old + merge(recipe, f"{module}.bias", terms)
    return found


def _other_ranks(
    recipe: Composition, module: str, members: Sequence[Member], where: Where
) -> Finding:
    ranks = {m.name: m.pairs[module].rank for m in members if module in m.pairs}
    return codes.COMBINE_UNSUPPORTED.finding(
        f"{recipe.combine!r} needs factors of one rank, and {module} has different ranks",
        where,
        found=", ".join(f"{name}: {rank}" for name, rank in ranks.items()),
        expected="one rank",
        hint="Use sum or cat, which are exact, or svd or a method with _svd: they take any ranks.",
    )
