"""A base of some 330 MB, random, written from code shard by shard, and a LoRA for it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def large_base(folder: Path, dtype: torch.dtype, shard: int | None = None) -> Path:
    """A Llama of 338 MB in float32 or 331 MB in a half; in files of at most ``shard`` bytes, or
    in one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    layers = 6 if dtype is torch.float32 else 13
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    config.architectures, config.dtype = ["LlamaForCausalLM"], dtype
    config.save_pretrained(folder)
    torch.manual_seed(0)
    noise = torch.randn(1 << 22).mul_(0.02).to(dtype)
    parts: list[dict[str, torch.Tensor]] = [{}]
    for name, meta in model.state_dict().items():
        if (
            shard
            and sum(t.nbytes for t in parts[-1].values()) + meta.numel() * dtype.itemsize > shard
        ):
            parts.append({})
        copies = -(-meta.numel() // len(noise))
        parts[-1][name] = noise.repeat(copies)[: meta.numel()].view(meta.shape).clone()
    if len(parts) == 1:
        save_file(parts[0], folder / "model.safetensors", {"format": "pt"})
        return folder
    files = {f"model-{number}.safetensors": part for number, part in enumerate(parts)}
    for file, part in files.items():
        save_file(part, folder / file, {"format": "pt"})
    index = {name: file for file, part in files.items() for name in part}
    size = sum(tensor.nbytes for part in parts for tensor in part.values())
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def large_lora(folder: Path, base: Path) -> Path:
    """A LoRA of rank 8 in float32 on every projection of a :func:`large_base`."""
    config = json.loads((base / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    small = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    sizes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, small),
        "self_attn.v_proj": (hidden, small),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(config["num_hidden_layers"]):
        for module, (inside, outside) in sizes.items():
            key = f"base_model.model.model.layers.{layer}.{module}.lora_"
            tensors[f"{key}A.weight"] = torch.randn(8, inside) * 0.01
            tensors[f"{key}B.weight"] = torch.randn(outside, 8) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": [*PROJECTIONS]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
