"""A recipe carried out over its members: one pair at each module, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.combine_methods import COMBINE_METHODS, CombineMethod
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight, weight_at
from .members import Member
from .methods import Contribution, Settings, combine, merge
from .pairs import Pair, PairPlace


@dataclass(frozen=True, eq=False)
class Combined:
    """The parts of one adapter. Every pair has scale 1; ``biases`` are whole ones, to stand in
    place of the base's (of which ``old`` has the values)."""

    sites: Mapping[PairPlace, Pair]
    biases: Mapping[str, torch.Tensor] = field(default_factory=dict)
    whole: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def ranks(self) -> Mapping[str, int]:
        return {place.module: pair.rank for place, pair in self.sites.items()}


def combine_members(
    recipe: Composition,
    members: Sequence[Member],
    weights: Sequence[Weight],
    places: Mapping[str, PairPlace],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Combined:
    """All of ``members`` by ``recipe``, float32 on the CPU; pure, and the same in any order of
    the modules. Raises :class:`RoutingError` where factors of different ranks were to be added."""
    method, settings = COMBINE_METHODS[recipe.combine], settings_of(recipe, members)
    sites: dict[PairPlace, Pair] = {}
    problems: list[Finding] = []
    with torch.no_grad():
        for module, place in places.items():
            parts = [
                Contribution(member.pairs[module], weight_at(weight, module), member.digest)
                for member, weight in zip(members, weights, strict=True)
                if module in member.pairs
            ]
            parts = parts if method.on != "ranks" else [p for p in parts if p.weight]
            if method.on == "factors" and len({part.pair.rank for part in parts}) > 1:
                problems.append(_other_ranks(recipe, module, members, where))
            elif parts and not problems:
                sites[place] = combine(method, settings, place, parts)
        if problems:
            raise RoutingError(*problems)
        biases = _biases(method, settings, members, weights)
    whole = {name: found for member in members for name, found in member.whole.items()}
    return Combined(sites, biases, whole)


def settings_of(recipe: Composition, members: Sequence[Member]) -> Settings:
    """The recipe's options with PEFT's defaults: an SVD has the largest rank of any member."""
    return Settings(
        density=1.0 if recipe.density is None else recipe.density,
        sign_method=recipe.majority_sign_method or "total",
        seed=recipe.seed or 0,
        rank=recipe.svd_rank or max((member.rank for member in members), default=1),
        clamp=recipe.svd_clamp,
    )


def _biases(
    method: CombineMethod, settings: Settings, members: Sequence[Member], weights: Sequence[Weight]
) -> dict[str, torch.Tensor]:
    """The base's biases with what the members' add to them, combined as the method says."""
    found: dict[str, torch.Tensor] = {}
    for module in dict.fromkeys(name for member in members for name in member.biases):
        having = [
            (member, weight_at(weight, module))
            for member, weight in zip(members, weights, strict=True)
            if module in member.biases
        ]
        old = having[0][0].biases[module][1]
        deltas = [member.biases[module][0] - old for member, _ in having]
        digests, shares = [m.digest for m, _ in having], [weight for _, weight in having]
        found[module] = old + merge(method, settings, f"{module}.bias", deltas, digests, shares)
    return found


def _other_ranks(
    recipe: Composition, module: str, members: Sequence[Member], where: Where
) -> Finding:
    ranks = {m.name: m.pairs[module].rank for m in members if module in m.pairs}
    return codes.COMBINE_UNSUPPORTED.finding(
        f"{recipe.combine!r} adds factors to factors, and at {module} they have different ranks",
        where,
        found=", ".join(f"{name}: {rank}" for name, rank in ranks.items()),
        expected="one rank",
        hint="sum and cat are exact over any ranks; svd and the methods with _svd take any too",
    )
