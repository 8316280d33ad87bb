"""Models with many adapters, and what each row of a batch answers when it is alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.routing.batched import SplitRows

from support.attach import attach_adapter

from .peft_adapters import peft_saves

Names = Sequence[str | None]
Config = tuple[Any, dict[str, Any]]
"""A config class of PEFT's (``None``: LoRA) and its fields."""


def _lora(*targets: str, **more: Any) -> Config:
    return None, {"target_modules": list(targets), **more}


def _of(kind: Any, *targets: str, **more: Any) -> Config:
    return kind, {"target_modules": list(targets), **more}


def _oft(*targets: str, **more: Any) -> Config:
    return _of(peft.OFTConfig, *targets, r=0, **more)


def _adalora(*targets: str, **more: Any) -> Config:
    return _of(peft.AdaLoraConfig, *targets, total_step=9, **more)


def _ia3(*targets: str, inputs: str) -> Config:
    return _of(peft.IA3Config, *targets, feedforward_modules=[inputs])


LINEAR: dict[str, tuple[Config, Config]] = {
    "lora": (
        _lora("q_proj", "down_proj", r=2),
        _lora("q_proj", "embed_tokens", r=5, lora_alpha=3),
    ),
    "lora bias": (_lora("q_proj", lora_bias=True), _lora("q_proj", "o_proj", r=3)),
    "dora": (
        _lora("q_proj", "down_proj", r=2, use_dora=True),
        _lora("q_proj", "embed_tokens", r=5, use_dora=True),
    ),
    "adalora": (_adalora("q_proj", "up_proj", init_r=3), _adalora("q_proj", init_r=6)),
    "ia3": (
        _ia3("k_proj", "down_proj", inputs="down_proj"),
        _ia3("k_proj", "up_proj", inputs="up_proj"),
    ),
    "vera": (_of(peft.VeraConfig, "q_proj", r=4), _of(peft.VeraConfig, "q_proj", r=4)),
    "vera of two seeds": (
        _of(peft.VeraConfig, "q_proj", "o_proj", r=4),
        _of(peft.VeraConfig, "q_proj", r=6, projection_prng_key=5),
    ),
    "loha": (
        _of(peft.LoHaConfig, "q_proj", "up_proj", r=2),
        _of(peft.LoHaConfig, "q_proj", r=3),
    ),
    "loha of a high rank": (
        _of(peft.LoHaConfig, "q_proj", "up_proj", r=9),
        _of(peft.LoHaConfig, "q_proj", r=12),
    ),
    "lokr": (
        _of(peft.LoKrConfig, "q_proj", "up_proj", r=2),
        _of(peft.LoKrConfig, "q_proj", r=3, decompose_factor=2),
    ),
    "oft": (
        _oft("q_proj", "embed_tokens", oft_block_size=4),
        _oft("q_proj", oft_block_size=8, block_share=True),
    ),
    "tokens": (
        _of(peft.TrainableTokensConfig, "embed_tokens", token_indices=[4, 9, 40]),
        _lora("v_proj", trainable_token_indices={"lm_head": [9, 3], "embed_tokens": [5]}),
    ),
    "whole modules": (
        _lora("q_proj", modules_to_save=["lm_head"]),
        _of(peft.LNTuningConfig, "input_layernorm"),
    ),
}
"""Two adapters of each method for a Llama."""


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
        for gathered in model._host.adapters.gathered._kept.values()
        for site, found in gathered.of.items()
        if found is not None and any(isinstance(delta, SplitRows) for delta in found.deltas)
    }
