"""Adapters as mlx-lm writes them, and what they make of a model by dense arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

RANK = 4
SCALE = 3.0
KEYS = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]


def mlx_saves(
    model: Any,
    folder: Path,
    layers: Iterable[int] = (0, 1),
    dora: bool = False,
    root: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
    **fields: Any,
) -> Path:
    """An adapter for a Llama on :data:`KEYS` of these ``layers`` and on the modules ``root``."""
    drawn = torch.Generator().manual_seed(5)
    names = [f"model.layers.{n}.{key}" for n in layers for key in KEYS] + [*root]
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        module = model.get_submodule(name)
        outer, inner = module.weight.shape
        if isinstance(module, nn.Embedding):
            outer, inner = inner, outer
        tensors[f"{name}.lora_a"] = torch.randn(inner, RANK, generator=drawn) * 0.1
        tensors[f"{name}.lora_b"] = torch.randn(RANK, outer, generator=drawn) * 0.1
        if dora:
            tensors[f"{name}.m"] = torch.rand(outer, generator=drawn) + 0.5
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / "adapters.safetensors")
    config = {
        "adapter_path": "adapters",
        "fine_tune_type": "dora" if dora else "lora",
        "iters": 100,
        "lora_parameters": {
            "rank": RANK,
            "scale": SCALE,
            "dropout": 0.0,
            "keys": [*KEYS, *root],
        },
        "model": "org/base",
        "num_layers": len([*layers]),
        "train": True,
        **fields,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=4))
    return folder


@torch.no_grad()
def densely(model: Any, folder: Path, scale: float = SCALE) -> Any:
    """``model`` with the adapter in its weights, as mlx-lm's ``fuse`` computes them."""
    from safetensors.torch import load_file

    tensors = {n: t.double() for n, t in load_file(folder / "adapters.safetensors").items()}
    for name, a in tensors.items():
        if not name.endswith(".lora_a"):
            continue
        at = name.removesuffix(".lora_a")
        module = model.get_submodule(at)
        delta = scale * (a @ tensors[f"{at}.lora_b"])
        if not isinstance(module, nn.Embedding):
            delta = delta.T
        weight = module.weight.double() + delta
        if f"{at}.m" in tensors:
            weight *= (tensors[f"{at}.m"] / weight.norm(dim=1))[:, None]
        module.weight.copy_(weight)
    return model
