"""The shape that is measured: a SmolLM2-sized Llama, and LoRA r=16 on all its linear modules; for
batches of other methods, DoRA on the same modules and IA3 where it is used on a Llama."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

RANK = 16
BASE_NAME = "bench/llama"
"""The Hub id that the adapters record; the manifests list it as an alias."""
CONFIG = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_HIDDEN, _INNER, _KV = CONFIG["hidden_size"], CONFIG["intermediate_size"], 3 * CONFIG["head_dim"]
SIZES = {
    "self_attn.q_proj": (_HIDDEN, _HIDDEN),
    "self_attn.k_proj": (_HIDDEN, _KV),
    "self_attn.v_proj": (_HIDDEN, _KV),
    "self_attn.o_proj": (_HIDDEN, _HIDDEN),
    "mlp.gate_proj": (_HIDDEN, _INNER),
    "mlp.up_proj": (_HIDDEN, _INNER),
    "mlp.down_proj": (_INNER, _HIDDEN),
}
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": BASE_NAME,
    "r": RANK,
    "lora_alpha": 2 * RANK,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": list(TARGETS),
    "inference_mode": True,
}
Tensors = dict[str, torch.Tensor]


def build_model() -> transformers.PreTrainedModel:
    """A Llama with random float32 weights (the same every time), in eval mode."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**CONFIG)
    return transformers.LlamaForCausalLM(config).eval()


def write_adapters(folder: Path, count: int, dtype: torch.dtype = torch.bfloat16) -> list[Path]:
    """``count`` adapters in PEFT's format: 420 tensors, 9.8 MB each in a 16-bit dtype."""

    def tensors(key: str, inputs: int, outputs: int) -> Tensors:
        return {
            f"{key}.lora_A.weight": (torch.randn(RANK, inputs) / 50).to(dtype),
            f"{key}.lora_B.weight": (torch.randn(outputs, RANK) / 50).to(dtype),
        }

    return _write(folder, count, ADAPTER_CONFIG, tensors)


def write_small(folder: Path, count: int) -> list[Path]:
    """``count`` LoRA of rank 4 on queries and values in bfloat16: 120 tensors, 0.5 MB each."""
    rank, targets = 4, ["q_proj", "v_proj"]

    def tensors(key: str, inputs: int, outputs: int) -> Tensors:
        if not key.endswith(tuple(targets)):
            return {}
        return {
            f"{key}.lora_A.weight": (torch.randn(rank, inputs) / 50).bfloat16(),
            f"{key}.lora_B.weight": (torch.randn(outputs, rank) / 50).bfloat16(),
        }

    config = {**ADAPTER_CONFIG, "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    return _write(folder, count, config, tensors)


def write_dora(folder: Path, count: int) -> list[Path]:
    """The same with magnitudes, all in float32."""

    def tensors(key: str, inputs: int, outputs: int) -> Tensors:
        return {
            f"{key}.lora_A.weight": torch.randn(RANK, inputs) / 50,
            f"{key}.lora_B.weight": torch.randn(outputs, RANK) / 50,
            f"{key}.lora_magnitude_vector": torch.rand(outputs) + 0.5,
        }

    return _write(folder, count, {**ADAPTER_CONFIG, "use_dora": True}, tensors)


def write_ia3(folder: Path, count: int) -> list[Path]:
    """Vectors for keys, values and the inputs of the down projections (PEFT's targets for a
    Llama), in float32."""

    def tensors(key: str, inputs: int, outputs: int) -> Tensors:
        if key.endswith("down_proj"):
            return {f"{key}.ia3_l": torch.rand(1, inputs) + 0.5}
        if key.endswith(("k_proj", "v_proj")):
            return {f"{key}.ia3_l": torch.rand(outputs, 1) + 0.5}
        return {}

    config = {
        "peft_type": "IA3",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE_NAME,
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
        "inference_mode": True,
    }
    return _write(folder, count, config, tensors)


def _write(
    folder: Path,
    count: int,
    config: Mapping[str, Any],
    tensors: Callable[[str, int, int], Tensors],
) -> list[Path]:
    made: list[Path] = []
    for number in range(count):
        torch.manual_seed(number + 1)
        found: Tensors = {}
        for layer in range(CONFIG["num_hidden_layers"]):
            for name, (inputs, outputs) in SIZES.items():
                found |= tensors(f"base_model.model.model.layers.{layer}.{name}", inputs, outputs)
        path = folder / f"adapter-{number:02d}"
        path.mkdir(parents=True)
        save_file(found, path / "adapter_model.safetensors", metadata={"format": "pt"})
        (path / "adapter_config.json").write_text(json.dumps(config, indent=2))
        made.append(path)
    return made
