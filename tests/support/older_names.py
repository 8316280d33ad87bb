"""Adapters as older versions of transformers named their modules, and what they must come to.

A checkpoint on disk has the names of the version that its class was written for, and transformers
converts them as it loads. So an adapter on those names has a reference that asks nobody: the dense
deltas are added to the checkpoint's own tensors, and transformers loads what comes of it.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from support.near import differs

RANK, ALPHA = 3, 6
LINEAR = frozenset(
    {
        *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query", "key", "value", "qkv"),
        *("query_key_value", "q_a_proj", "q_b_proj", "kv_b_proj", "fc1", "fc2", "dense", "proj"),
        *("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "gate"),
        *("weights_in", "weights_out", "linear_1", "linear_2", "Wqkv", "in_proj"),
    }
)
"""Last names of modules that were linear layers."""


@dataclass(frozen=True)
class Older:
    """A base on disk, and an adapter beside it by the names on disk."""

    kind: type[Any]
    base: Path
    adapter: Path
    names: tuple[str, ...]

    def model(self) -> Any:
        return loaded(self.kind, self.base)

    def reference(self, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
        """The base with the dense deltas in it, added before transformers converts anything."""
        weights = {n: t.to(dtype) for n, t in load_file(self.base / "model.safetensors").items()}
        file = self.adapter / "adapter_model.safetensors"
        tensors = {n: t.to(dtype) for n, t in load_file(file).items()}
        config = json.loads((self.adapter / "adapter_config.json").read_text())
        for key, a in tensors.items():
            if key.endswith("lora_A.weight"):
                name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                b = tensors[key.replace("lora_A", "lora_B")]
                scale = scale_of(config, name)
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + scale * b @ a
        folder.mkdir(parents=True)
        for file in self.base.iterdir():
            if file.suffix == ".json":
                (folder / file.name).write_bytes(file.read_bytes())
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return loaded(self.kind, folder, dtype)


def scale_of(config: Mapping[str, Any], name: str) -> float:
    """PEFT's: by the first pattern that matches the end of the name."""

    def by(table: str, default: float) -> float:
        said = config.get(table) or {}
        found = (v for p, v in said.items() if re.match(rf"(.*\.)?({p})$", name))
        return next(found, default)

    rank = by("rank_pattern", config["r"])
    alpha = by("alpha_pattern", config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def loaded(kind: type[Any], folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_pretrained(folder, dtype=dtype).eval()
    if dtype is torch.float64:  # for which torch has no grouped products
        model.set_experts_implementation("eager")
    return model


def older(
    model: nn.Module,
    folder: Path,
    *,
    names: Callable[[str], bool] = lambda name: True,
    targets: Collection[str] | str | None = None,
    rank: int = RANK,
    **config: Any,
) -> Older:
    """``model`` saved, and a LoRA of this rank for those linear layers of the checkpoint that
    ``names`` picks, by the names that they have on disk."""
    base, adapter = folder / "base", folder / "adapter"
    model.save_pretrained(base)  # pyright: ignore[reportCallIssue]
    shapes = {n: t.shape for n, t in load_file(base / "model.safetensors").items()}
    chosen = [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and name.split(".")[-2] in LINEAR
    ]
    chosen = [name for name in chosen if names(name)]
    torch.manual_seed(1)
    tensors: dict[str, torch.Tensor] = {}
    for name in chosen:
        rows, columns = shapes[f"{name}.weight"]
        tensors |= pair(name, rows, columns, rank)
    leaves = sorted({name.split(".")[-1] for name in chosen})
    write(adapter, tensors, {"target_modules": leaves if targets is None else targets, **config})
    return Older(type(model), base, adapter, tuple(chosen))


def pair(name: str, rows: int, columns: int, rank: int = RANK) -> dict[str, torch.Tensor]:
    return {
        f"base_model.model.{name}.lora_A.weight": torch.randn(rank, columns) * 0.3,
        f"base_model.model.{name}.lora_B.weight": torch.randn(rows, rank) * 0.3,
    }


def write(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    own = {"r": RANK, "lora_alpha": ALPHA} if "peft_type" not in config else {}
    said = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        **own,
        **{k: sorted(v) if isinstance(v, set | frozenset) else v for k, v in config.items()},
    }
    save_file(dict(tensors), folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(said))


def differences(model: nn.Module, other: nn.Module) -> dict[str, float]:
    """{parameter: how far off}, where two models differ."""
    theirs = other.state_dict()
    found: dict[str, float] = {}
    for name, value in model.state_dict().items():
        if differs(value, theirs[name], 1e-5):
            found[name] = float((value - theirs[name]).abs().max())
    return found
