"""The methods whose files are understood: a list of their rows, and look-ups in it by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files.facts import AdapterPlan
from . import (
    adalora,
    ia3,
    ln_tuning,
    loha,
    lokr,
    lora,
    oft,
    prompt,
    through_peft,
    trainable_tokens,
    vera,
)
from .method import Method

ROWS: tuple[Method, ...] = (
    *lora.METHODS,
    ia3.METHOD,
    loha.METHOD,
    lokr.METHOD,
    oft.METHOD,
    adalora.METHOD,
    trainable_tokens.METHOD,
    vera.METHOD,
    ln_tuning.METHOD,
    *prompt.METHODS,
    *through_peft.METHODS,
)

METHODS: Mapping[str, Method] = {m.peft_type: m for m in ROWS if m.native and not m.name}
"""The methods that attach without PEFT, by ``peft_type``."""

THROUGH_PEFT: Mapping[str, Method] = {m.peft_type: m for m in ROWS if not m.native}
"""Methods that attach where PEFT is installed."""

SITES: Mapping[str, Method] = {m.name or m.peft_type: m for m in ROWS}
"""All methods, by :attr:`SitePlan.method`: a LoRA has sites of other kinds too."""


def methods_of(plan: AdapterPlan) -> tuple[str, ...]:
    """PEFT's names of the methods that act in an adapter, sorted."""
    names = {site.method for site in plan.sites}
    names |= {plan.prompt.method} if plan.prompt is not None else set()
    names |= {plan.tuned_by} if plan.tuned else set()
    return tuple(sorted({SITES[name].peft_type for name in names}))


def dropout_of(config: Mapping[str, Any]) -> float:
    """The dropout of training in a config; 0 for methods without one."""
    method = METHODS.get(str(config.get("peft_type")))
    found = config.get(method.dropout) if method is not None and method.dropout else None
    return float(found) if isinstance(found, int | float) else 0.0
