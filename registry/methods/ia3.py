"""IA3 (https://arxiv.org/abs/2205.05638): a learned vector that rescales the output of a module or,
at feedforward modules, its input.

Fields, tensors and kinds: PEFT 0.21.2, ``tuners/ia3/config.py``, ``layer.py`` and ``model.py``. The
one role is ``l``, on disk ``.ia3_l``: (out, 1) at a linear module, (1, in) at a feedforward one,
(1, channels, 1, 1[, 1]) at a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..files.conversion import Shape
from ..files.facts import Layout, ModuleKind, ModuleShape, SitePlan
from .keys import Roles
from .method import Method
from .module_plan import MakeSite, on_modules
from .options import Option, Support
from .patterns import Patterns
from .peft_table import FEEDFORWARD, TARGETS
from .tuner_config import FAN_IN_FAN_OUT, LAYER_FIELDS, NAMES, TARGET_OPTIONS, TunerConfig, where_of

OPTIONS: tuple[Option, ...] = (
    *(option for option in TARGET_OPTIONS if option.name not in LAYER_FIELDS),
    Option(
        "feedforward_modules", Support.SUPPORTED, "names the modules whose input is rescaled", NAMES
    ),
    FAN_IN_FAN_OUT,
    Option("init_ia3_weights", Support.NO_EFFECT, "is the initialisation"),
)
ROLES: Roles = {("ia3_l", ""): "l"}

_UNKNOWN = (
    "feedforward_modules is not in adapter_config.json, so it is not known whether the vector "
    "rescales the input or the output"
)


@dataclass(frozen=True)
class Ia3Config(TunerConfig):
    """The part of IA3's config that changes the computation. ``feedforward`` is a pattern for
    complete names, endings of names, or ``None`` where the file does not say."""

    feedforward: str | tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ia3Config:
        """From checked fields of ``adapter_config.json``."""
        feedforward = config.get("feedforward_modules")
        return cls(
            **where_of(config),
            feedforward=tuple(feedforward) if isinstance(feedforward, list) else feedforward,
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """Add PEFT's ``feedforward_modules`` for the base's kind to a new config that has none."""
    inputs = FEEDFORWARD.get(str(base.get("model_type")))
    if config.get("feedforward_modules") is not None or inputs is None:
        return config
    return {**config, "feedforward_modules": list(inputs)}


def sites(config: Ia3Config, patterns: Patterns) -> MakeSite:
    """What makes the sites, each with whether it rescales the input."""
    settings = {known: MappingProxyType({"feedforward": known}) for known in (True, False, None)}

    def site(author: str, live: str, tensors: Mapping[str, str]) -> SitePlan:
        feedforward = is_feedforward(config.feedforward, author, patterns)
        return SitePlan(live, "IA3", tensors, 0, 1.0, 1.0, settings[feedforward])

    return site


def is_feedforward(
    feedforward: str | tuple[str, ...] | None, name: str, patterns: Patterns
) -> bool | None:
    """Whether the module's input is rescaled, ``None`` where ``feedforward`` is.

    PEFT compares the end of the complete path, without regard to its dots. Raises
    ``PatternError``.
    """
    if feedforward is None:
        return None
    if isinstance(feedforward, str):
        return patterns.match_all(feedforward, name)
    return name.endswith(feedforward)


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """The shape of the vector at this module, or why it cannot be adapted."""
    feedforward = site.settings.get("feedforward")
    if feedforward is None:
        return _UNKNOWN
    inner, outer = module.in_features or 0, module.out_features or 0
    if module.kind is ModuleKind.CONV:
        if len(module.kernel) == 1:
            return "a convolution with one dimension"
        ones = (1,) * len(module.kernel)
        return {"l": (1, inner if feedforward else outer, *ones)}
    return {"l": (1, inner) if feedforward else (outer, 1)}


METHOD = Method(
    "IA3",
    OPTIONS,
    Ia3Config.of,
    on_modules(ROLES, sites),
    ROLES,
    dict.fromkeys((ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV), frozenset({"l"})),
    shapes,
    default_targets=TARGETS["IA3"],
    complete=complete,
)
