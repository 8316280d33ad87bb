"""Formats of adapters that cannot be read: how each is recognised, and what to do about it.

They are recognised by the names of files, a config, or the names of tensors, never by weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Foreign:
    """What a folder holds instead of an adapter (the message has it after "The source is"), what
    to do about it, and what it was recognised by."""

    what: str
    hint: str
    seen: str = ""


_DIFFUSION = (
    "Load it in diffusers with pipe.load_lora_weights: it is for the parts of an image pipeline. "
    "PEFT's examples/stable_diffusion/convert_sd_adapter_to_peft.py converts the part of a text "
    "encoder to an adapter that PEFT reads."
)
KOHYA = Foreign("a LoRA in kohya's format (sd-scripts), for a diffusion model", _DIFFUSION)
DIFFUSERS = Foreign("a LoRA in diffusers' format, for a diffusion model", _DIFFUSION)
GGUF = Foreign(
    "a GGUF file of llama.cpp",
    "Use the adapter that it was converted from: llama.cpp has no conversion back to PEFT's "
    "format.",
)
ADAPTERHUB = Foreign(
    "an adapter of AdapterHub (the `adapters` library)",
    "Load it with that library (model.load_adapter): its bottleneck adapters have no counterpart "
    "in PEFT. Train its LoRA again with PEFT's LoraConfig.",
)
MLX_NPZ = Foreign(
    "an mlx-lm adapter from before April 2024, without a config that has its scale",
    "Load the .npz with mlx.core.load, write it with mlx.core.save_safetensors as "
    "adapters.safetensors, and write adapter_config.json with num_layers and lora_parameters "
    "(rank, scale, dropout) beside it.",
)
MLX_WEIGHTS = Foreign(
    "an mlx-lm adapter without the adapter_config.json that mlx-lm wrote",
    "Put that file beside adapters.safetensors: it has the scale (num_layers, and lora_parameters "
    "with rank, scale and dropout).",
)
TUNIX = Foreign(
    "an adapter of Tunix (JAX), whose modules and names are not those of transformers",
    "Merge it in Tunix, export the model to the Hugging Face format, and use that as a base.",
)
MODEL = Foreign(
    "a complete model, not an adapter",
    "Declare it as base.model. To extract an adapter from it, take the difference to its base with "
    "mergekit's `mergekit-extract-lora`.",
)
CHECKPOINT = Foreign(
    "a training checkpoint of a complete model, not an adapter",
    "Declare it as base.model; or train with PEFT, whose checkpoints hold adapter_config.json and "
    "adapter_model.safetensors.",
)
DEEPSPEED = Foreign(
    "a checkpoint of DeepSpeed ZeRO that was not gathered",
    "Gather it with the zero_to_fp32.py in the checkpoint, load the result with PEFT, "
    "and save_pretrained(dir); or train with stage3_gather_16bit_weights_on_model_save: true.",
)
FSDP = Foreign(
    "a distributed checkpoint of FSDP",
    "Gather it with `accelerate merge-weights DIR OUT`, load the result with PEFT, and "
    "save_pretrained(dir); or train with fsdp_state_dict_type: FULL_STATE_DICT.",
)
RENAMED = Foreign(
    "an adapter whose weights have another name than adapter_model.safetensors",
    "Rename the file to adapter_model.safetensors, beside its adapter_config.json.",
)

_WRITTEN_BY: tuple[tuple[str, Foreign], ...] = (
    (r"pytorch_lora_weights\.(safetensors|bin)", DIFFUSERS),
    (r".*\.gguf", GGUF),
    (r"(.*/)?zero_to_fp32\.py|(.*/)?(bf16_)?zero_pp_rank_\d+_.*", DEEPSPEED),
    (r"(.*/)?__\d+_\d+\.distcp", FSDP),
    (r"pytorch_adapter\.bin|adapter\.safetensors|pytorch_model_head\.bin", ADAPTERHUB),
    (r"adapters\.npz", MLX_NPZ),
)
_WHOLE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_TRAINING = frozenset({"optimizer.pt", "optimizer.bin", "scheduler.pt", "trainer_state.json"})

_SPELLINGS: tuple[tuple[re.Pattern[str], Foreign], ...] = (
    (re.compile(r"^lora_(unet|te\d?|transformer|prior_unet)_|\.lora_(down|up)\.weight$"), KOHYA),
    (
        re.compile(r"^(unet|text_encoder(_2)?|transformer)\.|\.lora(_linear_layer)?\.(down|up)\."),
        DIFFUSERS,
    ),
    (re.compile(r"\.(adapters|loras)\.[^.]+\.(adapter_(down|up)|lora_[AB]$)"), ADAPTERHUB),
    (re.compile(r"(^|\.)_flat_param$"), FSDP),
    (re.compile(r"\.lora_[ab]$"), MLX_WEIGHTS),
)
_OURS = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|hada_w|lokr_w|oft_R|ia3_l|vera_lambda)")


def by_files(paths: Collection[str]) -> Foreign | None:
    """The format, by the names of a folder's files."""
    for pattern, foreign in _WRITTEN_BY:
        if (path := next((p for p in sorted(paths) if re.fullmatch(pattern, p)), None)) is not None:
            return _seen(foreign, path)
    weights = next((path for path in sorted(paths) if _WHOLE.fullmatch(path)), None)
    if weights is None or "config.json" not in paths:
        return None
    training = next((path for path in sorted(paths) if path in _TRAINING), None)
    if training is not None:
        return _seen(CHECKPOINT, f"config.json, {weights}, {training}")
    return _seen(MODEL, f"config.json, {weights}")


def by_config(config: Mapping[str, Any]) -> Foreign | None:
    """The format, by an ``adapter_config.json`` that names no method."""
    if config.get("peft_type") is not None:
        return None
    if isinstance(config.get("config"), dict) and {"hidden_size", "model_class"} & config.keys():
        return _seen(ADAPTERHUB, f"version {str(config.get('version'))[:40]}")
    if isinstance(config.get("framework"), str) and "tunix" in config["framework"]:
        return _seen(TUNIX, f"framework {config['framework'][:40]}")
    if isinstance(config.get("architectures"), list) and "model_type" in config:
        return _seen(MODEL, "a model's config in adapter_config.json")
    return None


def by_tensors(names: Iterable[str]) -> Foreign | None:
    """The format, by the names of the tensors in a safetensors file."""
    for name in names:
        for spelling, foreign in _SPELLINGS:
            if spelling.search(name):
                return _seen(foreign, name[:200])
        if _OURS.search(name):
            return _seen(RENAMED, name[:200])
    return None


def _seen(foreign: Foreign, what: str) -> Foreign:
    return replace(foreign, seen=what)
