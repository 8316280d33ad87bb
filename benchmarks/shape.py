"""The shape that is measured: a SmolLM2-sized Llama, and LoRA r=16 on all its linear modules."""

from __future__ import annotations

import json
from pathlib import Path

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


def build_model() -> transformers.PreTrainedModel:
    """A Llama with random float32 weights (the same every time), in eval mode."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**CONFIG)
    return transformers.LlamaForCausalLM(config).eval()


def write_adapters(folder: Path, count: int, dtype: torch.dtype = torch.bfloat16) -> list[Path]:
    """``count`` adapters in PEFT's format: 420 tensors, 9.8 MB each in a 16-bit dtype."""
    hidden, inner, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], 3 * CONFIG["head_dim"]
    sizes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, kv),
        "self_attn.v_proj": (hidden, kv),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    config = {
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
    made: list[Path] = []
    for number in range(count):
        torch.manual_seed(number + 1)
        tensors = {}
        for layer in range(CONFIG["num_hidden_layers"]):
            for name, (inputs, outputs) in sizes.items():
                key = f"base_model.model.model.layers.{layer}.{name}"
                tensors[f"{key}.lora_A.weight"] = (torch.randn(RANK, inputs) / 50).to(dtype)
                tensors[f"{key}.lora_B.weight"] = (torch.randn(outputs, RANK) / 50).to(dtype)
        path = folder / f"adapter-{number:02d}"
        path.mkdir(parents=True)
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        (path / "adapter_config.json").write_text(json.dumps(config, indent=2))
        made.append(path)
    return made
