"""What LoHa and LoKr have in common: ranks, alphas and dropouts, and the modules that they adapt.

Fields and kinds: PEFT 0.21.2, ``tuners/lycoris_utils.py`` and the configs of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape, SitePlan
from .keys import Roles
from .method import Method, ReadConfig
from .module_plan import MakeSite, on_modules
from .options import Option, Support, boolean, fraction, map_of, number, optional, rank
from .patterns import Patterns, PatternTable
from .peft_table import TARGETS
from .tuner_config import RANK, TARGET_OPTIONS, TunerConfig, frozen, where_of

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT

OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    RANK,
    Option("alpha", _S, "is divided by the rank to give the scale", number),
    Option("rank_pattern", _S, "gives modules ranks of their own", optional(map_of(rank))),
    Option("alpha_pattern", _S, "gives modules alphas of their own", optional(map_of(number))),
    Option("use_effective_conv2d", _S, "decomposes the kernels of convolutions", optional(boolean)),
    Option("rank_dropout", _S, "drops rows of the delta while training", optional(fraction)),
    Option("module_dropout", _S, "drops modules while training", optional(fraction)),
    Option("init_weights", _NO, "is the initialisation"),
)


@dataclass(frozen=True)
class LycorisConfig(TunerConfig):
    """The part of the config that changes the computation; each site has the ``settings``."""

    r: int = 8
    alpha: float = 8
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> LycorisConfig:
        """From checked fields of ``adapter_config.json``; absent ones have PEFT's defaults."""
        return cls(
            **where_of(config),
            r=config.get("r", 8),
            alpha=config.get("alpha", 8),
            rank_pattern=frozen(config.get("rank_pattern")),
            alpha_pattern=frozen(config.get("alpha_pattern")),
            settings=frozen(cls.settings_of(config)),
        )

    @staticmethod
    def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
        """The other fields that act at a site, without those that are off."""
        named = {
            "effective": config.get("use_effective_conv2d"),
            "rank_dropout": config.get("rank_dropout"),
            "module_dropout": config.get("module_dropout"),
        }
        return {name: value for name, value in named.items() if value}


def row(
    name: str,
    options: tuple[Option, ...],
    read_config: ReadConfig,
    roles: Roles,
    kinds: Mapping[ModuleKind, frozenset[str]],
    expected: Callable[[SitePlan, ModuleShape], Mapping[str, Shape]],
    role_sets: tuple[frozenset[str], ...] = (),
) -> Method:
    """The row of one of the two methods. ``expected`` are the shapes that the config makes."""

    def sites(config: LycorisConfig, patterns: Patterns) -> MakeSite:
        ranks = PatternTable(config.rank_pattern, patterns)
        alphas = PatternTable(config.alpha_pattern, patterns)

        def site(author: str, live: str, tensors: Mapping[str, str]) -> SitePlan:
            r, alpha = ranks.get(author, config.r), alphas.get(author, config.alpha)
            return SitePlan(live, name, tensors, r, alpha, alpha / r, config.settings)

        return site

    def shapes(
        site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
    ) -> Mapping[str, Shape] | str:
        if module.kind is ModuleKind.CONV and len(module.kernel) > 2:
            return "a convolution with three dimensions"
        made = expected(site, module)
        if not found or made.keys() == found.keys():  # a new adapter has no tensors yet
            return made
        wanted = ", ".join(sorted(made))
        return f"the file has {', '.join(sorted(found))}, but the config makes {wanted}"

    return Method(
        name,
        options,
        read_config,
        on_modules(roles, sites),
        roles,
        kinds,
        shapes,
        role_sets,
        default_targets=TARGETS[name],
        idle=tuple(frozenset({role}) for role in sorted({*roles.values()} - {"t1", "t2"})),
    )


def inner_of(module: ModuleShape) -> int:
    """The second size of the module's weight."""
    return (module.in_features or 0) // module.groups


def is_effective(site: SitePlan, module: ModuleShape) -> bool:
    """Whether the kernel has a tensor of its own: never for a kernel of one."""
    return bool(site.settings.get("effective")) and math.prod(module.kernel) != 1


def core(rank: int, module: ModuleShape) -> Shape:
    """The shape of that tensor; at a convolution with one dimension its last size is 1."""
    return (rank, rank, *module.kernel, *(1,) * (2 - len(module.kernel)))
