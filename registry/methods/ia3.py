"""IA3 (https://arxiv.org/abs/2205.05638): a learned vector that rescales what a module returns or,
at feedforward modules, what it is given.

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
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .default_targets import FEEDFORWARD, TARGETS
from .keys import Roles
from .method import Method
from .module_plan import plan_on_modules
from .naming import Naming
from .options import Option, Support, boolean, either, list_of, optional, text
from .patterns import Patterns
from .tuner_config import LAYER_FIELDS, TARGET_OPTIONS, TunerConfig, where_of

OPTIONS: tuple[Option, ...] = (
    *(option for option in TARGET_OPTIONS if option.name not in LAYER_FIELDS),
    Option(
        "feedforward_modules",
        Support.SUPPORTED,
        "names the modules whose input is rescaled",
        optional(either(text, list_of(text))),
    ),
    Option("fan_in_fan_out", Support.SUPPORTED, "says how the weight is stored", optional(boolean)),
    Option("init_ia3_weights", Support.NO_EFFECT, "is how training began"),
)
ROLES: Roles = {("ia3_l", ""): "l"}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({"l"}),)
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    kind: frozenset({"l"}) for kind in (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV)
}

_UNKNOWN = (
    "feedforward_modules is not in adapter_config.json, so it cannot be told whether the vector "
    "rescales the input or the output"
)


@dataclass(frozen=True)
class Ia3Config(TunerConfig):
    """What of IA3's config changes the computation. ``feedforward`` is a pattern for whole names,
    endings of names, or ``None`` where the file does not say."""

    feedforward: str | tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ia3Config:
        """From ``adapter_config.json`` whose fields are of the right kind."""
        feedforward = config.get("feedforward_modules")
        return cls(
            **where_of(config),
            feedforward=tuple(feedforward) if isinstance(feedforward, list) else feedforward,
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """PEFT's ``feedforward_modules`` for the base's kind, where a new config leaves them out."""
    inputs = FEEDFORWARD.get(str(base.get("model_type")))
    if config.get("feedforward_modules") is not None or inputs is None:
        return config
    return {**config, "feedforward_modules": list(inputs)}


def plan(
    config: Ia3Config,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``."""
    known = patterns or Patterns()
    settings = {is_it: MappingProxyType({"feedforward": is_it}) for is_it in (True, False, None)}

    def site(author: str, live: str, roles: Mapping[str, str]) -> SitePlan:
        feedforward = is_feedforward(config.feedforward, author, known)
        return SitePlan(live, "IA3", roles, 0, 1.0, 1.0, settings[feedforward])

    return plan_on_modules(config, tensors, layout, ROLES, site)


def is_feedforward(
    feedforward: str | tuple[str, ...] | None, name: str, patterns: Patterns
) -> bool | None:
    """Whether the module's input is rescaled, ``None`` where that is not said.

    PEFT compares the end of the whole path, without regard to its dots. Raises
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
    """The vector's shape at this module, or why there can be none."""
    feedforward = site.settings.get("feedforward")
    if feedforward is None:
        return _UNKNOWN
    inner, outer = module.in_features or 0, module.out_features or 0
    if module.kind is ModuleKind.CONV:
        if len(module.kernel) == 1:
            return "a convolution of one dimension"
        ones = (1,) * len(module.kernel)
        return {"l": (1, inner if feedforward else outer, *ones)}
    return {"l": (1, inner) if feedforward else (outer, 1)}


METHOD = Method(
    "IA3",
    OPTIONS,
    Ia3Config.of,
    plan,
    ROLES,
    ROLE_SETS,
    KINDS,
    shapes,
    default_targets=TARGETS["IA3"],
    complete=complete,
)
