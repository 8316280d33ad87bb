"""AdaLoRA (https://arxiv.org/abs/2303.10512) after its training: a delta of singular vectors and
values, whose rank the training chose for each module.

Fields, tensors and kinds: PEFT 0.21.2, ``tuners/adalora/config.py``, ``layer.py`` and ``model.py``.
Roles are PEFT's parameter names without ``lora_``: ``A`` (r, in * kernel), ``E`` (r, 1), ``B``
(out, r). ``rank_pattern`` keeps a boolean for each of the initial ``init_r`` directions, and the
file holds the directions that are left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape, SitePlan
from . import lora_config
from .keys import Roles
from .method import Method
from .module_plan import MakeSite, on_modules
from .options import (
    Option,
    Support,
    alike,
    anything,
    boolean,
    list_of,
    map_of,
    number,
    optional,
    rank,
)
from .patterns import Patterns
from .tuner_config import TunerConfig, frozen, where_of

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT
_NOT_YET = frozenset(
    {
        "use_dora",
        "trainable_token_indices",
        "target_parameters",
        "velora_config",
        "use_bdlora",
        "alora_invocation_tokens",
    }
)
"""Fields of LoRA that act in AdaLoRA too, and that are not carried out here."""
_OWN: tuple[Option, ...] = (
    Option("init_r", _S, "is the initial rank", rank),
    Option("lora_alpha", _S, "is divided by that rank to give the scale", number),
    Option(
        "rank_pattern",
        _S,
        "says which directions are left at each module",
        optional(map_of(list_of(boolean))),
    ),
    Option("loftq_config", Support.NEVER, "replaces the base by a quantised copy (LoftQ)"),
    *alike(_NO, "is not used by AdaLoRA", "r", "alpha_pattern", "use_rslora", "lora_bias"),
    Option("init_lora_weights", _NO, "is the initialisation, which does not change the base"),
    *alike(_NO, "acts while training", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
    *alike(_NO, "acts while training", "orth_reg_weight", "total_step"),
)
OPTIONS: tuple[Option, ...] = (
    *_OWN,
    *(
        replace(o, support=Support.NOT_YET, expect=anything) if o.name in _NOT_YET else o
        for o in lora_config.OPTIONS
        if o.name not in {own.name for own in _OWN}
    ),
)
ROLES: Roles = {("lora_A", ""): "A", ("lora_B", ""): "B", ("lora_E", ""): "E"}

_OF_E = re.compile(r"(?P<module>.+)\.lora_E(\.[^.]+)?")
"""A key of ``rank_pattern``; the adapter's name may follow."""
_TINY = 1e-5
"""What PEFT adds to the rank before it divides by it."""


@dataclass(frozen=True)
class AdaLoraConfig(TunerConfig):
    """The part of AdaLoRA's config that changes the computation. ``kept`` is the rank that is left,
    by the file's module names."""

    init_r: int = 12
    alpha: float = 8
    kept: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AdaLoraConfig:
        """From checked fields of ``adapter_config.json``; absent ones have PEFT's defaults."""
        pattern: Mapping[str, list[bool]] = config.get("rank_pattern") or {}
        return cls(
            **where_of(config),
            init_r=config.get("init_r", 12),
            alpha=config.get("lora_alpha", 8),
            kept=frozen({_module(key): sum(left) for key, left in pattern.items()}),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )


def check_config(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find entries of ``rank_pattern`` that do not have ``init_r`` directions."""
    pattern: Mapping[str, list[bool]] = config.get("rank_pattern") or {}
    initial = config.get("init_r", 12)
    odd = sorted({len(left) for left in pattern.values()} - {initial})
    if not odd:
        return []
    message = f"rank_pattern has entries for {odd[0]} directions, but init_r is {initial}"
    return [codes.OPTION_CONTRADICTION.finding(message, where)]


def sites(config: AdaLoraConfig, patterns: Patterns) -> MakeSite:
    """What makes the sites, each with the rank that is left there."""

    def site(author: str, live: str, tensors: Mapping[str, str]) -> SitePlan:
        r = config.kept.get(author, config.init_r)
        alpha = config.alpha if config.alpha > 0 else float(r)
        return SitePlan(live, "ADALORA", tensors, r, alpha, alpha / (config.init_r + _TINY))

    return site


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """The shape of each role's tensor at this module, or why it cannot be adapted."""
    if module.kind is ModuleKind.CONV and (len(module.kernel) != 2 or module.groups != 1):
        return "a convolution with groups, or without exactly two dimensions"
    inner = (module.in_features or 0) * math.prod(module.kernel)
    return {
        "A": (site.rank, inner),
        "E": (site.rank, 1),
        "B": (module.out_features or 0, site.rank),
    }


def _module(key: str) -> str:
    found = _OF_E.fullmatch(key)
    return found["module"] if found else key


METHOD = Method(
    "ADALORA",
    OPTIONS,
    AdaLoraConfig.of,
    on_modules(ROLES, sites),
    ROLES,
    dict.fromkeys((ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV), frozenset("ABE")),
    shapes,
    check_config=check_config,
    trains=False,
    idle=tuple(frozenset({role}) for role in ("A", "B", "E")),
)
