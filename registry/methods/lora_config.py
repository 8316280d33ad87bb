"""LoRA's config, read strictly: each field of PEFT's ``LoraConfig`` is classified here.

Fields: PEFT 0.21.2 ``tuners/lora/config.py``, and those that earlier versions wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.wording import shown
from .lora_parameters import in_first
from .lora_variants import ALORA, BDLORA, VARIANTS, VELORA, settings_of
from .options import (
    Option,
    Support,
    alike,
    boolean,
    either,
    index,
    list_of,
    map_of,
    number,
    optional,
    rank,
    text,
)
from .peft_version import version_of
from .tuner_config import (
    FAN_IN_FAN_OUT,
    RANK,
    TARGET_OPTIONS,
    TunerConfig,
    bias_of,
    frozen,
    where_of,
)

_S, _NO, _YET, _NEVER = Support.SUPPORTED, Support.NO_EFFECT, Support.NOT_YET, Support.NEVER

OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    RANK,
    Option("lora_alpha", _S, "is divided by the rank to give the scale", number),
    Option("rank_pattern", _S, "gives modules ranks of their own", optional(map_of(rank))),
    Option("alpha_pattern", _S, "gives modules alphas of their own", optional(map_of(number))),
    Option("use_rslora", _S, "divides alpha by the square root of the rank", optional(boolean)),
    FAN_IN_FAN_OUT,
    bias_of("lora"),
    Option("init_lora_weights", _S, "is the initialisation", optional(either(boolean, text))),
    Option("ensure_weight_tying", _S, "adapts tied layers together", optional(boolean)),
    Option("use_dora", _S, "rescales adapted weights to a learned size (DoRA)", optional(boolean)),
    Option("lora_bias", _S, "adds a learned bias to lora_B", optional(boolean)),
    Option(
        "trainable_token_indices",
        _S,
        "trains single rows of the embedding",
        optional(either(list_of(index), map_of(list_of(index)))),
    ),
    Option("target_parameters", _S, "adapts parameters by name", optional(list_of(text))),
    Option("use_qalora", _YET, "pools the input by groups (QA-LoRA)"),
    Option("velora_config", _S, "keeps a compressed input while training (VeLoRA)", VELORA),
    Option("use_bdlora", _S, "makes factors block-diagonal (BD-LoRA)", BDLORA),
    Option("alora_invocation_tokens", _S, "acts from these tokens on (aLoRA)", ALORA),
    Option("arrow_config", _YET, "routes between adapters (Arrow)"),
    Option("monteclora_config", _YET, "samples the factors (MonteCLoRA)"),
    Option("megatron_config", _YET, "adapts Megatron's parallel layers"),
    Option("enable_lora", _YET, "adapts parts of a fused layer (PEFT before 0.3)"),
    Option("kasa_config", _NEVER, "truncates the base's own weights (KaSA)"),
    Option("layer_replication", _NEVER, "rebuilds the base with repeated layers"),
    *alike(_NO, "acts while training or initialising", "lora_dropout", "loftq_config"),
    *alike(_NO, "acts while initialising", "eva_config", "corda_config", "lora_ga_config"),
    *alike(_NO, "is only used with another field", "megatron_core", "qalora_group_size"),
    *alike(_NO, "is not part of the adapter", "runtime_config", "merge_weights"),
)

PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
"""Values of ``init_lora_weights`` that do not change the base (``eva`` and ``orthogonal`` only set
the factors; ``mica`` also freezes B). True and false do not either."""

_CHANGES_BASE = re.compile(r"pissa(_niter_\d+)?|olora|corda|loftq|lora_ga", re.IGNORECASE)
"""Values that subtract the first factors from the base, or replace it by a quantised copy. The
saved factors then only make sense on the changed base. Where PEFT converted them
(``path_initial_model_for_weight_conversion``), the config says ``true`` instead."""


def init_of(config: Mapping[str, Any]) -> object:
    """``init_lora_weights``, in lower case."""
    how = config.get("init_lora_weights", True)
    return how.lower() if isinstance(how, str) else how


def check_trained(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find an initialisation that changed the base, or that is not known."""
    value = config.get("init_lora_weights")
    if not isinstance(value, str):
        return []
    if _CHANGES_BASE.fullmatch(value):
        message = f"init_lora_weights: {value} changed the base, and the adapter was not converted"
        return [codes.INIT_CHANGES_BASE.finding(message, where, found=value)]
    if value.lower() in PLAIN_INITS:
        return []
    return [
        codes.OPTION_UNSUPPORTED.finding(
            f"Unknown initialisation: init_lora_weights: {shown(value, 80)}",
            where,
            found=shown(value, 80),
            expected=f"true, false, {', '.join(sorted(PLAIN_INITS))}",
        )
    ]


@dataclass(frozen=True)
class LoraConfig(TunerConfig):
    """The part of LoRA's config that changes the computation."""

    r: int = 8
    alpha: float = 8
    rslora: bool = False
    in_first: tuple[bool, bool] | None = None
    """The layout of the factors of experts (:mod:`.lora_parameters`), by the PEFT that wrote it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every site: the roles that are ``frozen`` while the others are trained."""
    variant: Mapping[str, Any] = field(default_factory=dict)
    """The fields that ask for a variant (:mod:`.lora_variants`)."""

    def indices_of(self, module: str) -> tuple[int, ...] | None:
        """The rows that were trained in this embedding. PEFT compares the end of the complete path,
        without regard to its dots; the file says which one is the input embedding."""
        return next((rows for name, rows in self.tokens.items() if module.endswith(name)), None)

    def names(self, module: str) -> bool:
        """Whether ``target_modules`` names this module, in full or from a dot on."""
        names = self.targets if isinstance(self.targets, tuple) else ()
        return any(module == name or module.endswith(f".{name}") for name in names)

    def settings_at(self, author: str) -> Mapping[str, Any]:
        """The settings of the module that the file calls ``author``."""
        if not self.variant:
            return self.settings
        return frozen({**self.settings, **settings_of(self.variant, author)})

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> LoraConfig:
        """From the fields of ``adapter_config.json``, each of the right kind (see
        :data:`OPTIONS`). Absent fields have PEFT's defaults."""
        return cls(
            **where_of(config),
            r=config.get("r", 8),
            alpha=config.get("lora_alpha", 8),
            rank_pattern=frozen(config.get("rank_pattern")),
            alpha_pattern=frozen(config.get("alpha_pattern")),
            rslora=bool(config.get("use_rslora")),
            parameters=tuple(config.get("target_parameters") or ()),
            in_first=in_first(version_of(config)),
            settings=frozen({"frozen": ("B", "embedding_B")} if init_of(config) == "mica" else {}),
            variant=frozen({name: config[name] for name in VARIANTS if config.get(name)}),
            tokens=_tokens(config.get("trainable_token_indices")),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )


def _tokens(value: object) -> Mapping[str, tuple[int, ...]]:
    rows = cast("Mapping[str, list[int]]", {"": value} if isinstance(value, list) else value or {})
    return MappingProxyType({name: tuple(indices) for name, indices in rows.items() if indices})
