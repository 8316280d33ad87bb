"""Models with many adapters, and what each row of a batch answers when it is alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.attach import attach_adapter
from adapterdock.loader.gather import SplitRows

from .peft_adapters import peft_saves

Names = Sequence[str | None]

LINEAR: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "lora": [
        (None, {"r": 2, "target_modules": ["q_proj", "down_proj"]}),
        (None, {"r": 5, "target_modules": ["q_proj", "embed_tokens"], "lora_alpha": 3}),
    ],
    "lora bias": [
        (None, {"target_modules": ["q_proj"], "lora_bias": True}),
        (None, {"target_modules": ["q_proj", "o_proj"], "r": 3}),
    ],
    "dora": [
        (None, {"r": 2, "use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
        (None, {"r": 5, "use_dora": True, "target_modules": ["q_proj", "embed_tokens"]}),
    ],
    "adalora": [
        (peft.AdaLoraConfig, {"target_modules": ["q_proj", "up_proj"], "init_r": 3, "total_step": 9}),
        (peft.AdaLoraConfig, {"target_modules": ["q_proj"], "init_r": 6, "total_step": 9}),
    ],
    "ia3": [
        (peft.IA3Config, {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
        (peft.IA3Config, {"target_modules": ["k_proj", "up_proj"], "feedforward_modules": ["up_proj"]}),
    ],
    "vera": [
        (peft.VeraConfig, {"r": 4, "target_modules": ["q_proj"]}),
        (peft.VeraConfig, {"r": 4, "target_modules": ["q_proj"]}),
    ],
    "vera of two seeds": [
        (peft.VeraConfig, {"r": 4, "target_modules": ["q_proj", "o_proj"]}),
        (peft.VeraConfig, {"r": 6, "target_modules": ["q_proj"], "projection_prng_key": 5}),
    ],
    "loha": [
        (peft.LoHaConfig, {"r": 2, "target_modules": ["q_proj", "up_proj"]}),
        (peft.LoHaConfig, {"r": 3, "target_modules": ["q_proj"]}),
    ],
    "loha of a high rank": [
        (peft.LoHaConfig, {"r": 9, "target_modules": ["q_proj", "up_proj"]}),
        (peft.LoHaConfig, {"r": 12, "target_modules": ["q_proj"]}),
    ],
    "lokr": [
        (peft.LoKrConfig, {"r": 2, "target_modules": ["q_proj", "up_proj"]}),
        (peft.LoKrConfig, {"r": 3, "target_modules": ["q_proj"], "decompose_factor": 2}),
    ],
    "oft": [
        (peft.OFTConfig, {"r": 0, "oft_block_size": 4, "target_modules": ["q_proj", "embed_tokens"]}),
        (peft.OFTConfig, {"r": 0, "oft_block_size": 8, "target_modules": ["q_proj"], "block_share": True}),
    ],
    "tokens": [
        (peft.TrainableTokensConfig, {"token_indices": [4, 9, 40], "target_modules": ["embed_tokens"]}),
        (None, {"target_modules": ["v_proj"], "trainable_token_indices": {"lm_head": [9, 3], "embed_tokens": [5]}}),
    ],
    "whole modules": [
        (None, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        (peft.LNTuningConfig, {"target_modules": ["input_layernorm"]}),
    ],
}  # fmt: skip
"""Two adapters of each method for a Llama: ``(config class, fields)``."""


def dress(
    model: AdaptedModel, folder: Path, name: str, kind: Any, config: Mapping[str, Any], **how: Any
) -> None:
    """Attach what PEFT trains and saves for the model's base, under ``name``."""
    base, seed = model.base_model, sum(map(ord, name))
    saved = peft_saves(base, folder / name, seed=seed, kind=kind, **config)
    attach_adapter(model, name, saved.plan(base), saved.tensors(), **how)


def alone(model: AdaptedModel, inputs: Mapping[str, torch.Tensor], names: Names) -> torch.Tensor:
    """Each row's answer in a batch of its own."""
    rows = []
    for at, name in enumerate(names):
        row = {key: value[at : at + 1] for key, value in inputs.items()}
        rows.append(answer(model(**row, adapter=name)))
    return torch.cat(rows)


def answer(out: Any) -> torch.Tensor:
    if isinstance(out, torch.Tensor):
        return out
    return out.logits if hasattr(out, "logits") else out[0]


def split_sites(model: AdaptedModel) -> set[str]:
    """The modules where the latest batch's rows were run adapter by adapter."""
    return {
        site.name
        for gathered in model._gathered._kept.values()
        for site, found in gathered.of.items()
        if found is not None and any(isinstance(delta, SplitRows) for delta in found.deltas)
    }
