"""A combination as an adapter of its own, in PEFT's format: tensors, plan and config.

Format: PEFT 0.21.2, ``utils/save_and_load.py`` and ``tuners/lora/config.py``. Every module is
named in full, with its rank in ``rank_pattern`` and the same number in ``alpha_pattern``, so that
every scale is 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...registry.files.facts import AdapterPlan, Layout, ModuleKind, SitePlan
from ...registry.files.names import PEFT_PREFIX
from .combined import Combined

_TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}
"""Tasks for which PEFT adds no modules of its own, by the end of the base's class."""


def tensors_of(combined: Combined) -> dict[str, torch.Tensor]:
    """{key on disk: tensor}, float32 on the CPU."""
    found: dict[str, torch.Tensor] = {}
    for place, pair in combined.sites.items():
        names = place.names
        for name, tensor in zip(names, pair.at(place), strict=True):
            found[PEFT_PREFIX + name] = tensor
        if pair.bias is not None:
            found[PEFT_PREFIX + names[1].removesuffix("weight") + "bias"] = pair.bias
    for module, bias in combined.biases.items():
        found[_bias_key(module, combined)] = bias
    for module, tensors in combined.replaced.items():
        found.update({f"{PEFT_PREFIX}{module}.{path}": tensor for path, tensor in tensors.items()})
    return found


def plan_of(combined: Combined, layout: Layout) -> AdapterPlan:
    """Where the keys of :func:`tensors_of` go."""
    sites: list[SitePlan] = []
    for place, pair in combined.sites.items():
        a, b = (PEFT_PREFIX + name for name in place.names)
        kind = "embedding_" if place.kind is ModuleKind.EMBEDDING else ""
        roles = {f"{kind}A": a, f"{kind}B": b}
        if pair.bias is not None:
            roles["B_bias"] = b.removesuffix("weight") + "bias"
        sites.append(SitePlan(place.module, "LORA", roles, pair.rank, pair.rank, 1.0))
    replaced = {
        module: {path: f"{PEFT_PREFIX}{module}.{path}" for path in tensors}
        for module, tensors in combined.replaced.items()
    }
    grown = {module for module in replaced if _has_grown(module, combined, layout)}
    return AdapterPlan(
        sites=tuple(sites),
        saved={module: paths for module, paths in replaced.items() if module not in grown},
        biases={module: _bias_key(module, combined) for module in combined.biases},
        embeddings={module: replaced[module]["weight"] for module in grown},
    )


def config_of(
    combined: Combined, layout: Layout, *, class_name: str = "", base_name: str | None = None
) -> dict[str, Any]:
    """``adapter_config.json`` for :func:`tensors_of`. ``layout`` is the base's: modules whose
    names end like a target's are excluded by name, since PEFT matches the ends of names."""
    ranks = combined.ranks
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {f"^{re.escape(m)}": rank for m, rank in ranks.items() if rank != common}
    saved = plan_of(combined, layout).saved
    kinds = {place.kind for place in combined.sites}
    return {
        "peft_type": "LORA",
        "task_type": next((t for end, t in _TASKS.items() if class_name.endswith(end)), None),
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "exclude_modules": _ending_like(ranks, layout.modules) or None,
        "modules_to_save": sorted(saved) or None,
        "bias": _bias_kind(combined),
        "lora_bias": any(pair.bias is not None for pair in combined.sites.values()),
        "fan_in_fan_out": kinds == {ModuleKind.CONV1D},
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


def completed(combined: Combined, layout: Layout, biases: Mapping[str, torch.Tensor]) -> Combined:
    """The same with all tensors that its config calls for: if biases are trained, the base's
    ``biases`` (by module) for the others; if a pair has a bias, zeros for the other pairs."""
    sites = dict(combined.sites)
    if any(pair.bias is not None for pair in sites.values()):
        for place, pair in sites.items():
            if pair.bias is None and place.kind is not ModuleKind.EMBEDDING:
                zeros = torch.zeros(pair.b.shape[0] * pair.b.shape[1])
                sites[place] = type(pair)(pair.a, pair.b, pair.scale, zeros)
    kind = _bias_kind(combined)
    if kind == "none":
        return Combined(sites, {}, combined.replaced)
    inside = tuple(f"{name}." for name in combined.replaced)
    wanted = combined.ranks if kind == "lora_only" else layout.modules
    rest = {
        module: bias
        for module, bias in biases.items()
        if module in wanted
        and f"{module}.bias" not in layout.tied
        and not f"{module}.".startswith(inside)
    }
    return Combined(sites, {**rest, **combined.biases}, combined.replaced)


def _bias_kind(combined: Combined) -> str:
    if not combined.biases:
        return "none"
    return "lora_only" if combined.biases.keys() <= combined.ranks.keys() else "all"


def _bias_key(module: str, combined: Combined) -> str:
    """The bias's name on disk: PEFT wraps an adapted module."""
    inner = ".base_layer" if module in combined.ranks else ""
    return f"{PEFT_PREFIX}{module}{inner}.bias"


def _has_grown(module: str, combined: Combined, layout: Layout) -> bool:
    """Whether this is an embedding or head with another number of rows than the base's."""
    tensors, shape = combined.replaced[module], layout.modules.get(module)
    if set(tensors) != {"weight"} or shape is None:
        return False
    return tuple(tensors["weight"].shape) != shape.parameters.get("weight")


def _ending_like(targets: Iterable[str], modules: Iterable[str]) -> list[str]:
    """Modules that are not targets, but whose names end like one."""
    wanted = set(targets)
    ends = tuple(f".{name}" for name in wanted)
    return sorted(name for name in modules if name not in wanted and name.endswith(ends))
