"""New LoRA adapters, before there are values: what their config may ask for, and what their file
has in addition to the factors of modules.

Follows PEFT 0.21.2, ``tuners/lora/layer.py``, ``tuners/lora/model.py`` and ``utils/other.py``
(``set_additional_trainable_modules``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ...manifests.findings import training as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import ModuleKind, SitePlan
from ..files.names import PEFT_PREFIX
from . import lora_attention as attention
from .lora_config import LoraConfig, init_of
from .lora_parameters import NAME, selected, shapes
from .naming import TOKENS, WRAPPER, Naming
from .new_adapter import NewAdapter, input_embedding
from .patterns import PatternTable
from .targets import TargetSelection

INITS = (True, False, None, "gaussian", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that set the factors and nothing else; null is PEFT's false."""


def check_new(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find initialisations that are not carried out here, and combinations that PEFT refuses."""
    found: list[Finding] = []

    def refuse(message: str, said: object, expected: str | None = None) -> None:
        found.append(codes.NEW_INIT.finding(message, where, found=said, expected=expected))

    how = init_of(config)
    if how not in INITS:
        message = f"Cannot create an adapter with init_lora_weights: {how}"
        refuse(message, how, "true, false, gaussian, orthogonal or mica")
    ranks = [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    if how == "orthogonal" and any(rank % 2 for rank in ranks):
        refuse("init_lora_weights: orthogonal needs even ranks", ranks)
    if config.get("velora_config"):
        refuse("VeLoRA adapters can be loaded, but not created", "velora_config")
    if config.get("use_bdlora") and config.get("lora_bias"):
        refuse("lora_bias cannot be combined with use_bdlora", "lora_bias: true")
    if config.get("target_parameters"):
        names = ("lora_dropout", "use_dora", "lora_bias")
        if others := [name for name in names if config.get(name)]:
            message = f"target_parameters cannot be combined with {' and '.join(others)}"
            refuse(message, ", ".join(f"{name}: {config[name]}" for name in others))
        if how in ("orthogonal", "mica"):
            refuse(f"target_parameters cannot be combined with init_lora_weights: {how}", how)
    if how == "mica" and config.get("use_dora"):
        refuse("init_lora_weights: mica cannot be combined with use_dora", how)
    return found


def beside(new: NewAdapter) -> Mapping[str, Shape] | str:
    """The factors of parameters (``target_parameters``) and the rows of embeddings
    (``trainable_token_indices``), or why the adapter cannot be created."""
    config = cast(LoraConfig, new.config)
    if config.ensure_weight_tying and (tied := _tied_and_adapted(new)):
        return f"ensure_weight_tying makes one adapter of {tied}, which is not supported"
    if reason := _misplaced(config, new) or _attention(config, new):
        return reason
    factors = _parameters(config, new)
    if isinstance(factors, str):
        return factors
    rows = _rows(config, new)
    return rows if isinstance(rows, str) else {**factors, **rows}


def _misplaced(config: LoraConfig, new: NewAdapter) -> str | None:
    """Why ``init_lora_weights`` cannot initialise the factors of one of the modules."""
    how = init_of(new.said)
    if how not in ("orthogonal", "mica"):
        return None
    ranks = PatternTable(config.rank_pattern, new.patterns)
    for name in new.chosen:
        module = new.layout.modules[name]
        if module.kind is ModuleKind.CONV:
            return f"init_lora_weights: {how} does not apply to a convolution ({name})"
        most = min(module.in_features or 0, module.out_features or 0)
        if how == "mica" and (rank := ranks.get(name, config.r)) > most:
            return f"init_lora_weights: mica needs a rank of at most {most} at {name}, not {rank}"
    return None


def _attention(config: LoraConfig, new: NewAdapter) -> str | None:
    """Why there can be no new factors at an ``nn.MultiheadAttention``."""
    selection = TargetSelection(config, new.patterns, ())
    found = attention.selected(new.layout, selection, Naming())
    if not found:
        return None
    return f"{found[0]} is an nn.MultiheadAttention: its adapters can be loaded, but not created"


def _tied_and_adapted(new: NewAdapter) -> str | None:
    layout, config = new.layout, cast(LoraConfig, new.config)
    for one, other in layout.tied.items():
        ends = [name.rpartition(".")[0] for name in (one, other)]
        if any(end in new.chosen or end.endswith(config.modules_to_save or "\0") for end in ends):
            return " and ".join(sorted(ends))
    return None


def _parameters(config: LoraConfig, new: NewAdapter) -> dict[str, Shape] | str:
    """Factors of parameters; the first parameter of a module is wrapped innermost."""
    found: dict[str, Shape] = {}
    ranks = PatternTable(config.rank_pattern, new.patterns)
    for name, module in new.layout.modules.items() if config.parameters else ():
        wanted = selected(name, config.parameters, list(module.parameters))
        if wanted and name in new.chosen:
            return f"{name} is named by target_modules and by target_parameters"
        for place, parameter in enumerate(wanted, 1):
            rank = ranks.get(f"{name}.{parameter}", config.r)
            site = SitePlan(name, NAME, {}, rank, 1.0, 1.0, {"parameter": parameter})
            expected = shapes(site, module, {})
            if isinstance(expected, str):
                return f"{name}: {expected}"
            inside = f"{PEFT_PREFIX}{name}.{f'{WRAPPER}.' * (len(wanted) - place)}"
            found |= {f"{inside}lora_{role}.weight": shape for role, shape in expected.items()}
    return found


def _rows(config: LoraConfig, new: NewAdapter) -> dict[str, Shape] | str:
    """Rows of embeddings, or why there can be none."""
    found: dict[str, Shape] = {}
    modules = new.layout.modules
    for name, indices in config.tokens.items():
        first = input_embedding(new.layout)
        wanted = [live for live in modules if (live.endswith(name) if name else live == first)]
        if not wanted:
            return f"trainable_token_indices: the model has no {name or 'token embedding'}"
        for live in wanted:
            weight = modules[live].parameters.get("weight", ())
            if len(weight) != 2:
                return f"trainable_token_indices: {live} is not an embedding"
            key = f"{PEFT_PREFIX}{live}.{TOKENS}.trainable_tokens_delta"
            found[key] = (len(indices), weight[1])
    return found
