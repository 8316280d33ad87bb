"""Tiny bases and adapters to export, and what exported files hold, as torch has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from adapterdock.manifests.findings.finding import Finding, Where
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.checks.check_adapter import plan_on
from adapterdock.registry.files.facts import Layout, TensorInfo
from adapterdock.registry.read_facts import gather_adapter
from adapterdock.serving.export.dense import DenseLora, dense_lora
from adapterdock.serving.served.prepare import folder_at

from .peft_adapters import peft_loads

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPTS = [[1, 5, 9, 3, 44, 60, 7, 8, 30][:length] for length in range(1, 10)]
CONFIGS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 9},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 32, "layers.0.mlp.down_proj": 1}},
    "rank_pattern": {"rank_pattern": {"k_proj": 2, "up_proj": 7}},
}
"""Ways in which one scale for a whole file would be wrong."""


def base_to_export(architecture: str, **config: Any) -> Any:
    """A tiny model of an architecture, with two key-value heads and random weights."""
    import transformers as tf

    kind = architecture.removesuffix("ForCausalLM")
    settings = {**_SIZES, **({"head_dim": 8} if kind == "Qwen3" else {}), **config}
    torch.manual_seed(3)
    model = getattr(tf, architecture)(getattr(tf, f"{kind}Config")(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.config.architectures = [architecture]
    return model


def layout_to_export(model: Any) -> Layout:
    """The model's modules, as the registry knows them from a checkpoint."""
    kept = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        kept.pop("lm_head.weight")
    tensors = {name: TensorInfo("F32", tuple(value.shape)) for name, value in kept.items()}
    layout = layout_of(model.config.to_dict(), tensors)
    assert layout is not None
    return layout


def read_dense(
    folder: Path, layout: Layout, form: str = "GGUF"
) -> tuple[DenseLora | None, list[Finding]]:
    """The adapter in a folder, or why it cannot be exported."""
    facts = gather_adapter("it", folder_at(folder), Where())
    plan = plan_on(facts, layout)
    assert plan is not None
    places = {path: folder / path for path in facts.headers}
    return dense_lora("it", facts, plan, places, layout, form, Where())


def dense_of(model: Any, folder: Path, form: str = "GGUF") -> DenseLora:
    """The adapter in a folder, which can be exported."""
    lora, findings = read_dense(folder, layout_to_export(model), form)
    assert lora is not None, findings
    return lora


def refused(model: Any, folder: Path, form: str = "GGUF") -> Finding:
    """Why the adapter in a folder cannot be exported."""
    lora, findings = read_dense(folder, layout_to_export(model), form)
    assert lora is None
    (finding,) = findings
    return finding


def peft_deltas(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """By module, the change of the weight (out, in) that PEFT computes."""
    loaded = peft_loads(model, folder)
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight(folder.name).detach()
        for name, module in loaded.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def gguf_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a GGUF file, by name, in numpy's order of axes."""
    import gguf

    return {t.name: torch.tensor(t.data.copy()) for t in gguf.GGUFReader(path).tensors}


def gguf_fields(path: Path) -> Mapping[str, Any]:
    """The metadata of a GGUF file."""
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def in_pairs(delta: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows as llama.cpp turns them: 2i and 2i + 1 of a head are i and half + i of transformers'."""
    size = delta.shape[0] // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return delta[order]


@torch.no_grad()
def expected(model: Any) -> torch.Tensor:
    """What transformers answers after each prompt."""
    logits = [model(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
    return torch.stack(logits).float().log_softmax(-1)
