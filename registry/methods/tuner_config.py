"""What the configs of PEFT's methods have in common: which modules are adapted, and what else of
the base was trained with them.

Fields: PEFT 0.21.2 ``config.py`` and ``tuners/tuners_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from .options import (
    Option,
    Support,
    any_text,
    boolean,
    either,
    index,
    list_of,
    one_of,
    optional,
    rank,
    text,
)

ALL_LINEAR = "all-linear"

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT

NAMES = optional(either(text, list_of(text)))
"""A pattern, or names of modules."""
TARGET_OPTIONS: tuple[Option, ...] = (
    Option("target_modules", _S, "names the adapted modules", NAMES),
    Option("exclude_modules", _S, "names modules that are not adapted", NAMES),
    Option("layers_to_transform", _S, "picks layers", optional(either(index, list_of(index)))),
    Option("layers_pattern", _S, "names the layers", optional(either(any_text, list_of(text)))),
    Option("modules_to_save", _S, "trains complete modules", optional(list_of(text))),
    Option("task_type", _NO, "names the task", optional(text)),
    Option("auto_mapping", _NO, "names the base's class"),
    Option("inference_mode", _NO, "is not part of the adapter"),
)
"""Fields of every method that sits on modules."""
LAYER_FIELDS = frozenset({"layers_to_transform", "layers_pattern"})
"""Those of them that some methods do not have."""
RANK = Option("r", _S, "is the rank", rank)
FAN_IN_FAN_OUT = Option("fan_in_fan_out", _S, "says how the weight is stored", optional(boolean))


def bias_of(method: str) -> Option:
    """The field ``bias``; the adapted modules alone are ``lora_only``, of VeRA ``vera_only``."""
    kinds = optional(one_of("none", "all", f"{method.lower()}_only"))
    return Option("bias", _S, "trains biases of the base", kinds)


TASK_HEADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "SEQ_CLS": ("classifier", "score"),
        "TOKEN_CLS": ("classifier", "score"),
        "QUESTION_ANS": ("qa_outputs",),
    }
)
"""What PEFT (0.21, ``peft_model.py``) adds to ``modules_to_save`` by the task. It does so as it
loads; PEFT before 0.11 did not write the names into the file."""


@dataclass(frozen=True)
class TunerConfig:
    """What of a config says where an adapter sits; each method's own view adds to it."""

    targets: str | tuple[str, ...] | None = None
    """A regular expression, names, ``all-linear``, or ``None`` where the file does not say."""
    exclude: str | tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    ensure_weight_tying: bool = False
    fan_in_fan_out: bool | None = None
    """Whether weights are stored as (in, out); ``None`` for methods that do not ask."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    """``target_parameters``: names of parameters, or what they end in from a dot on."""
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """``trainable_token_indices``: module to rows; under ``""`` those of the input embedding."""


def where_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`TunerConfig` that do not depend on the method, from the method's own
    fields of ``adapter_config.json``, each of the right kind; absent ones have PEFT's default."""
    layers = config.get("layers_to_transform")
    if isinstance(layers, int):
        layers = [layers]
    return {
        "targets": _names(config.get("target_modules")),
        "exclude": _names(config.get("exclude_modules")) or (),
        "layers": tuple(layers) if layers else None,
        "layers_pattern": _list(config.get("layers_pattern")),
        "modules_to_save": _list(config.get("modules_to_save")),
        "bias": config.get("bias") or "none",
        "ensure_weight_tying": bool(config.get("ensure_weight_tying")),
    }


def frozen(value: object) -> Mapping[str, Any]:
    """A read-only copy of a config's map; empty for null."""
    return MappingProxyType(dict(cast("Mapping[str, Any]", value or {})))


def _names(value: str | list[str] | None) -> str | tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) else value


def _list(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else tuple(value or ())
