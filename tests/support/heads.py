"""Bases without a head, adapters that PEFT trained with one, and manifests over both."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from support.peft_adapters import Saved, ids, peft_saves

NAME = "org/base"
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 61,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def tiny(kind: Any, **changes: Any) -> Any:
    """A small model of this class, its weights random and of one seed."""
    torch.manual_seed(0)
    sizes = SIZES
    if kind.config_class.model_type == "distilbert":
        sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "vocab_size": 61}
        sizes |= {"initializer_range": 0.3}
    return kind(kind.config_class(**{**sizes, **changes})).eval()


def saved_adapter(base: Any, folder: Path, **config: Any) -> Saved:
    """What PEFT trained on ``base`` and saved, recording :data:`NAME` as its base."""
    trained = copy.deepcopy(base)
    trained.config._name_or_path = trained.name_or_path = ""
    saved = peft_saves(trained, folder, **config)
    edit(folder / "adapter_config.json", base_model_name_or_path=NAME)
    return saved


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def manifest_over(
    base: Path, adapters: Mapping[str, Path], said: Mapping[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    """A manifest of these folders; ``said`` are further keys of its base."""
    return {
        "version": 1,
        "base": {"model": str(base), "aliases": [NAME], "dtype": "float32", **(said or {})},
        "adapters": {name: {"source": str(folder)} for name, folder in adapters.items()},
        **keys,
    }


def answer(model: Any, **more: Any) -> torch.Tensor:
    """All that the model says to the usual tokens, in one row of numbers."""
    with torch.no_grad():
        out = model(input_ids=ids(), **more)
    parts = [out.logits] if "logits" in out else [out[0]]
    if "start_logits" in out:
        parts = [out.start_logits, out.end_logits]
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=-1)


def write_manifest(file: Path, manifest: Mapping[str, Any]) -> Path:
    """The manifest as a file."""
    file.write_text(yaml.safe_dump(dict(manifest)))
    return file
