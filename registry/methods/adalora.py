"""AdaLoRA (https://arxiv.org/abs/2303.10512) after its training: a delta of singular vectors and
values, whose rank the training chose for each module.

Fields, tensors and kinds: PEFT 0.21.2, ``tuners/adalora/config.py``, ``layer.py`` and ``model.py``.
Roles are PEFT's parameter names without ``lora_``: ``A`` (r, in * kernel), ``E`` (r, 1), ``B``
(out, r). ``rank_pattern`` keeps a boolean for each of the ``init_r`` directions that the training
began with, and the file holds those that are left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .keys import Roles
from .method import Method
from .module_plan import plan_on_modules
from .naming import Naming
from .options import Option, Support, boolean, list_of, map_of, number, one_of, optional, rank
from .patterns import Patterns
from .tuner_config import TARGET_OPTIONS, TunerConfig, frozen, where_of

_S, _NO, _YET, _NEVER = Support.SUPPORTED, Support.NO_EFFECT, Support.NOT_YET, Support.NEVER

OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    Option("init_r", _S, "is the rank that training began with", rank),
    Option("lora_alpha", _S, "is divided by that rank to give the scale", number),
    Option(
        "rank_pattern",
        _S,
        "says which directions are left at each module",
        optional(map_of(list_of(boolean))),
    ),
    Option("fan_in_fan_out", _S, "says how the weight is stored", optional(boolean)),
    Option("bias", _S, "trains biases of the base", optional(one_of("none", "all", "lora_only"))),
    Option("ensure_weight_tying", _S, "adapts tied layers together", optional(boolean)),
    Option("use_dora", _YET, "does not exist for AdaLoRA"),
    Option("trainable_token_indices", _YET, "trains single rows of the embedding"),
    Option("target_parameters", _YET, "adapts parameters that are no module (experts)"),
    Option("alora_invocation_tokens", _YET, "acts only after an invocation string (aLoRA)"),
    Option("arrow_config", _YET, "routes between adapters (Arrow)"),
    Option("velora_config", _YET, "compresses activations with a projection of its own (VeLoRA)"),
    Option("monteclora_config", _YET, "samples the factors (MonteCLoRA)"),
    Option("use_bdlora", _YET, "makes factors block-diagonal (BD-LoRA)"),
    Option("use_qalora", _YET, "pools the input by groups (QA-LoRA)"),
    Option("megatron_config", _YET, "adapts Megatron's parallel layers"),
    Option("enable_lora", _YET, "adapts parts of a fused layer (PEFT before 0.3)"),
    Option("kasa_config", _NEVER, "truncates the base's own weights (KaSA)"),
    Option("layer_replication", _NEVER, "rebuilds the base with repeated layers"),
    Option("loftq_config", _NEVER, "replaces the base by a quantised copy (LoftQ)"),
    Option("lora_dropout", _NO, "is the dropout while training"),
    Option("r", _NO, "is not used by AdaLoRA, which has init_r"),
    Option("alpha_pattern", _NO, "is not used by AdaLoRA"),
    Option("use_rslora", _NO, "is not used by AdaLoRA"),
    Option("lora_bias", _NO, "is not used by AdaLoRA"),
    Option("init_lora_weights", _NO, "is how training began; AdaLoRA leaves the base as it is"),
    Option("target_r", _NO, "is the rank that training aimed at"),
    Option("tinit", _NO, "is a step of the training"),
    Option("tfinal", _NO, "is a step of the training"),
    Option("deltaT", _NO, "is a step of the training"),
    Option("beta1", _NO, "smooths while training"),
    Option("beta2", _NO, "smooths while training"),
    Option("orth_reg_weight", _NO, "is part of the training's loss"),
    Option("total_step", _NO, "is the length of the training"),
    Option("megatron_core", _NO, "names a module that only megatron_config uses"),
    Option("qalora_group_size", _NO, "is only used with use_qalora"),
    Option("eva_config", _NO, "is only used while initialising"),
    Option("corda_config", _NO, "is only used while initialising"),
    Option("lora_ga_config", _NO, "is only used while initialising"),
    Option("runtime_config", _NO, "is not part of the adapter"),
    Option("merge_weights", _NO, "was how PEFT before 0.3 merged in eval mode"),
)
ROLES: Roles = {("lora_A", ""): "A", ("lora_B", ""): "B", ("lora_E", ""): "E"}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({"A", "B", "E"}),)
KINDS: Mapping[ModuleKind, frozenset[str]] = dict.fromkeys(
    (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV), frozenset({"A", "B", "E"})
)

_OF_E = re.compile(r"(?P<module>.+)\.lora_E(\.[^.]+)?")
"""A key of ``rank_pattern``; the adapter's name may follow."""
_TINY = 1e-5
"""What PEFT adds to the rank before it divides by it."""


@dataclass(frozen=True)
class AdaLoraConfig(TunerConfig):
    """What of AdaLoRA's config changes the computation. ``kept`` is the rank that is left, by the
    file's module names."""

    init_r: int = 12
    alpha: float = 8
    kept: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AdaLoraConfig:
        """From ``adapter_config.json`` whose fields are of the right kind; fields that are left
        out have PEFT's defaults."""
        pattern: Mapping[str, list[bool]] = config.get("rank_pattern") or {}
        return cls(
            **where_of(config),
            init_r=config.get("init_r", 12),
            alpha=config.get("lora_alpha", 8),
            kept=frozen({_module(key): sum(left) for key, left in pattern.items()}),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
            bias=config.get("bias") or "none",
            ensure_weight_tying=bool(config.get("ensure_weight_tying")),
        )


def check_config(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Entries of ``rank_pattern`` of another length than ``init_r``."""
    pattern: Mapping[str, list[bool]] = config.get("rank_pattern") or {}
    began = config.get("init_r", 12)
    odd = sorted({len(left) for left in pattern.values()} - {began})
    if not odd:
        return []
    message = f"rank_pattern has entries for {odd[0]} directions, and init_r is {began}"
    return [codes.OPTION_CONTRADICTION.finding(message, where)]


def plan(
    config: AdaLoraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``."""

    def site(author: str, live: str, roles: Mapping[str, str]) -> SitePlan:
        r = config.kept.get(author, config.init_r)
        alpha = config.alpha if config.alpha > 0 else float(r)
        return SitePlan(live, "ADALORA", roles, r, alpha, alpha / (config.init_r + _TINY))

    return plan_on_modules(config, tensors, layout, ROLES, site)


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """What each role's tensor must be at this module, or why there can be none."""
    if module.kind is ModuleKind.CONV and (len(module.kernel) != 2 or module.groups != 1):
        return "a convolution that has groups, or not two dimensions"
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
    plan,
    ROLES,
    ROLE_SETS,
    KINDS,
    shapes,
    check_config=check_config,
    trains=False,
    idle=tuple(frozenset({role}) for role in ("A", "B", "E")),
)
