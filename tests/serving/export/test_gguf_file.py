"""The GGUF files that export writes, read back with the gguf package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.serving.export.architectures import ARCHITECTURES
from adapterdock.serving.export.gguf_file import unnamed, write_gguf
from support.exported import (
    CONFIGS,
    LINEAR,
    base_to_export,
    dense_of,
    gguf_fields,
    gguf_tensors,
    in_pairs,
    peft_deltas,
    refused,
)
from support.near import close, differs
from support.peft_adapters import peft_saves

NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
LLAMA = ARCHITECTURES["LlamaForCausalLM"]


def written(model: Any, folder: Path, out: Path) -> Path:
    architecture = ARCHITECTURES[model.config.architectures[0]]
    config, lora = model.config.to_dict(), dense_of(model, folder)
    assert unnamed(lora, architecture, config, Where()) == []
    write_gguf(out, lora, architecture, config)
    return out


ALL_AT_ONCE = {key: value for config in CONFIGS.values() for key, value in config.items()}


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        *((LLAMA.name, config) for config in CONFIGS.values()),
        *((name, ALL_AT_ONCE) for name in ARCHITECTURES if name != LLAMA.name),
    ],
)
def test_a_file_without_a_scale_holds_the_change_that_peft_computes(
    architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    model = base_to_export(architecture)
    saved = peft_saves(model, tmp_path / "it", target_modules=[*LINEAR], **config)
    path = written(model, saved.folder, tmp_path / "it.gguf")

    fields, tensors = gguf_fields(path), gguf_tensors(path)
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 0.0
    assert fields["general.architecture"] == ARCHITECTURES[architecture].gguf
    wanted = peft_deltas(model, saved.folder)
    assert len(wanted) == 14
    assert len(tensors) == 28
    for module, delta in wanted.items():
        _, _, layer, _, leaf = module.split(".")
        name = f"blk.{layer}.{NAMES[leaf]}.weight"
        found = tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]
        heads = {"q_proj": 4, "k_proj": 2}.get(leaf)
        if heads and ARCHITECTURES[architecture].gguf == "llama":
            assert differs(found, delta)
            delta = in_pairs(delta, heads)
        assert close(found, delta), module


def test_an_untied_head_is_written(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM")
    alone = {"save_embedding_layers": False}
    saved = peft_saves(model, tmp_path / "it", target_modules=["lm_head"], save=alone)
    tensors = gguf_tensors(written(model, saved.folder, tmp_path / "it.gguf"))
    found = tensors["output.weight.lora_b"] @ tensors["output.weight.lora_a"]
    assert close(found, peft_deltas(model, saved.folder)["lm_head"])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias of the base"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embedding"),
        ({"trainable_token_indices": [3, 4]}, "TRAINABLE_TOKENS is not LoRA"),
        ({"alora_invocation_tokens": [5, 6]}, "aLoRA"),
        ({"target_parameters": ["mlp.gate_proj.weight"]}, "LORA_PARAMETER is not LoRA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_dense_lora_is_refused_by_name(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    bias = {"attention_bias": True} if "bias" in config or "lora_bias" in config else {}
    model = base_to_export("LlamaForCausalLM", **bias)
    saved = peft_saves(model, tmp_path / "it", **{"target_modules": ["q_proj"], **config})
    finding = refused(model, saved.folder)
    assert finding.code == "AD983"
    assert reason in (finding.found or "")


def test_a_tied_head_is_refused(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM", tie_word_embeddings=True)
    alone = {"save_embedding_layers": False}
    targets = ["q_proj", "lm_head"]
    saved = peft_saves(model, tmp_path / "it", target_modules=targets, save=alone)
    assert "tied" in (refused(model, saved.folder).found or "")


def test_a_base_without_its_heads_is_refused(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM")
    saved = peft_saves(model, tmp_path / "it", target_modules=["k_proj"])
    lora = dense_of(model, saved.folder)
    for config in ({}, {"num_attention_heads": 4, "num_key_value_heads": 5}):
        (finding,) = unnamed(lora, LLAMA, config, Where())
        assert finding.code == "AD983"
