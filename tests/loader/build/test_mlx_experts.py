"""Experts of mlx-lm's adapters: one by one in the reading, fused as transformers has them today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from safetensors.torch import save_file
from support.moes import tiny_qwen_moe
from support.near import close, differs
from support.peft_adapters import logits

SCALE, RANK = 3.0, 2


@torch.no_grad()
def saved(model: Any, folder: Path, layers: tuple[int, ...], flat: bool) -> Path:
    """An adapter on the experts of these layers; ``model`` has it in its weights afterwards.
    ``flat`` is how mlx-lm before October 2025 kept A."""
    drawn = torch.Generator().manual_seed(1)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if not name.endswith("experts") or int(name.split(".")[2]) not in layers:
            continue
        count, hidden, inner = module.down_proj.shape
        at = name.replace("experts", "switch_mlp")
        for part, outer, width in (
            ("gate_proj", inner, hidden),
            ("up_proj", inner, hidden),
            ("down_proj", hidden, inner),
        ):
            a = torch.randn(count, RANK, width, generator=drawn) * 0.3
            b = torch.randn(count, outer, RANK, generator=drawn) * 0.3
            tensors[f"{at}.{part}.lora_a"] = a.flatten(0, 1) if flat else a
            tensors[f"{at}.{part}.lora_b"] = b
            delta = SCALE * (b @ a)
            if part == "down_proj":
                module.down_proj += delta
            else:
                half = slice(inner) if part == "gate_proj" else slice(inner, None)
                module.gate_up_proj[:, half] += delta
    folder.mkdir()
    save_file(tensors, folder / "adapters.safetensors")
    parameters = {"rank": RANK, "scale": SCALE, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": len(layers), "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("layers", [(0, 1), (1,)])
def test_experts_of_mlx_lm_answer_as_their_arithmetic_says(
    flat: bool, layers: tuple[int, ...], tmp_path: Path
) -> None:
    fused = tiny_qwen_moe()
    folder = saved(fused, tmp_path / "mlx", layers, flat)
    model = AdaptedModel(tiny_qwen_moe())
    model.load_adapter(folder, "mlx")
    answer = logits(fused)
    assert close(logits(model, adapter="mlx"), answer)
    assert differs(logits(model.base_model), answer)
