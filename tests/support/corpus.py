"""Real adapter configs (``tests/data/corpus``), and a tiny base of the kind that each is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from support.tiny_models import COMMON, ENCODER, NEMOTRON_H, TINY, VISION

CORPUS = Path(__file__).resolve().parents[1] / "data" / "corpus"

QWEN_VISION: dict[str, Any] = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 4,
    "patch_size": 4,
    "spatial_merge_size": 2,
}
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2]}
HEAD = {**COMMON, "head_dim": 8}

BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": TINY["llama"],
    "llama-model": TINY["llama base"],
    "mistral": TINY["mistral"],
    "qwen2": TINY["qwen2"],
    "qwen3": TINY["qwen3"],
    "gemma": TINY["gemma"],
    "gemma2": TINY["gemma2"],
    "gemma3-text": TINY["gemma3 text"],
    "gemma3-vl": TINY["gemma3"],
    "phi": TINY["phi"],
    "phi3": TINY["phi3"],
    "gpt2": TINY["gpt2"],
    "gpt2-seqcls": (
        *TINY["gpt2 for sequences"][:2],
        {**TINY["gpt2 for sequences"][2], "pad_token_id": 0},
    ),
    "gpt_neox": TINY["gpt_neox"],
    "falcon-7b": TINY["falcon"],
    "bert-seqcls": TINY["bert for sequences"],
    "roberta-seqcls": TINY["roberta for sequences"],
    "distilbert": TINY["distilbert"],
    "flan-t5": TINY["t5 v1.1"],
    # an inner size of its own, because the prefixes that it gets have the real model's
    "flan-t5-xl": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            **TINY["t5 v1.1"][2],
            "d_model": 16,
            "num_layers": 1,
            "num_decoder_layers": 24,
            "num_heads": 32,
            "d_kv": 64,
        },
    ),
    "nemotron_h": (
        "NemotronHForCausalLM",
        "NemotronHConfig",
        {
            **{k: v for k, v in HEAD.items() if k != "num_hidden_layers"},
            **NEMOTRON_H,
        },
    ),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", TINY["t5 v1.1"][2]),
    "nllb-m2m100": TINY["m2m_100"],
    "whisper": TINY["whisper"],
    "llava": TINY["llava"],
    "hunyuan_v1_dense": ("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Config", HEAD),
    "qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLConfig",
        {
            "text_config": {**HEAD, "rope_parameters": MROPE},
            "vision_config": {
                **QWEN_VISION,
                "out_hidden_size": 32,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLConfig",
        {
            "text_config": {**COMMON, "rope_parameters": MROPE},
            "vision_config": {
                **QWEN_VISION,
                "out_hidden_size": 32,
                "window_size": 16,
                "fullatt_block_indexes": [0],
            },
        },
    ),
    "qwen3_5": (
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5Config",
        {
            "text_config": {
                **HEAD,
                "layer_types": ["linear_attention", "full_attention"],
                "linear_num_value_heads": 4,
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
            },
            "vision_config": {
                **QWEN_VISION,
                "out_hidden_size": 32,
                "num_position_embeddings": 16,
            },
        },
    ),
    "idefics3": (
        "Idefics3ForConditionalGeneration",
        "Idefics3Config",
        {
            "text_config": {"model_type": "llama", **COMMON},
            "vision_config": VISION,
            "scale_factor": 2,
            "image_token_id": 60,
        },
    ),
    "mllama": (
        "MllamaForConditionalGeneration",
        "MllamaConfig",
        {
            "text_config": {**COMMON, "cross_attention_layers": [1]},
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_global_layers": 1,
                "attention_heads": 4,
                "image_size": 16,
                "patch_size": 4,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [0],
            },
            "image_token_index": 60,
        },
    ),
    "gemma4": (
        "Gemma4ForConditionalGeneration",
        "Gemma4Config",
        {
            "text_config": {
                **HEAD,
                "global_head_dim": 8,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 64,
                "layer_types": ["sliding_attention", "full_attention"],
                "num_kv_shared_layers": 0,
            },
            "vision_config": {**VISION, "head_dim": 8, "num_key_value_heads": 4},
            "audio_config": None,
        },
    ),
    "blip": (
        "BlipForConditionalGeneration",
        "BlipConfig",
        {
            "text_config": {**ENCODER, "encoder_hidden_size": 32},
            "vision_config": VISION,
            "projection_dim": 16,
        },
    ),
}
"""By the index's ``tiny_base_used``: ``(class, config class, options)``."""

NOT_MADE = frozenset({"046", "095", "096", "167"})
"""PEFT 0.21 makes none of these: it refuses the projections of a Mamba layer, and the names that
Qwen2.5-VL had before transformers 4.52. The last is mlx-lm's, whatever its `peft_type` says."""


def rows() -> list[dict[str, Any]]:
    """The index: what each config is."""
    return json.loads((CORPUS / "index.json").read_text())


def peft_rows() -> dict[str, str]:
    """By number, the tiny base of every adapter that has one and that PEFT itself can make."""
    found = {
        row["file"].removesuffix(".json"): row["tiny_base_used"]
        for row in rows()
        if row["kind"] == "peft" and row["tiny_base_used"]
    }
    found["116"] = "flan-t5-xl"
    return {number: kind for number, kind in found.items() if number not in NOT_MADE}


def config_of(number: str) -> dict[str, Any]:
    return json.loads((CORPUS / f"{number}.json").read_text())


def base_of(kind: str, layers: int | None = None) -> nn.Module:
    """A tiny base of this kind with random weights, and with as many layers."""
    name, config, options = BASES[kind]
    if layers is not None:
        options = {
            **options,
            "text_config": {**options["text_config"], "num_hidden_layers": layers},
        }
    torch.manual_seed(0)
    made = getattr(transformers, config)(**options)
    model: nn.Module = getattr(transformers, name)(made)
    return model.eval()


def inputs_of(kind: str) -> Mapping[str, torch.Tensor]:
    """Tokens, and what else a forward of this kind cannot do without."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 55, (2, 7), generator=generator)
    if kind in ("flan-t5", "flan-t5-xl", "mt5", "nllb-m2m100"):
        return {"input_ids": tokens, "decoder_input_ids": tokens[:, :4]}
    if kind == "whisper":
        features = torch.randn(2, 8, 3000, generator=generator)
        return {"input_features": features, "decoder_input_ids": tokens[:, :4]}
    if kind == "blip":
        return {"input_ids": tokens, "pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    return {"input_ids": tokens}
