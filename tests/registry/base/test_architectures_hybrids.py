"""Bases whose config chooses the kind of each layer, or the towers: the header tells them all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import transformers
import yaml
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.registry.base.architectures import layout_of
from support.checkpoints import config_and_tensors
from support.peft_adapters import peft_saves
from support.table_version import of_the_tables_transformers
from support.tiny_models import NEMOTRON_H

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
ATTENTION_IN_TWO = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

HYBRIDS: dict[str, tuple[str, dict[str, Any]]] = {
    "granite 4, dense": (
        "GraniteMoeHybridForCausalLM",
        {
            **SMALL,
            **MAMBA,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 48,
            "layer_types": ["mamba", "attention", "mamba", "attention"],
        },
    ),
    "granite 4, with experts": (
        "GraniteMoeHybridForCausalLM",
        {
            **SMALL,
            **MAMBA,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 48,
            "layer_types": ["mamba", "mamba", "mamba", "attention"],
        },
    ),
    "bamba": ("BambaForCausalLM", {**SMALL, **MAMBA, "attn_layer_indices": [1, 3]}),
    "bamba of mamba alone": ("BambaForCausalLM", {**SMALL, **MAMBA, "attn_layer_indices": []}),
    "lfm2": ("Lfm2ForCausalLM", {**SMALL, "layer_types": ["conv", "full_attention"] * 2}),
    "lfm2 with experts": (
        "Lfm2MoeForCausalLM",
        {
            **SMALL,
            **EXPERTS,
            "num_dense_layers": 1,
            "layer_types": ["conv", "full_attention", "conv", "conv"],
        },
    ),
    "nemotron h": (
        "NemotronHForCausalLM",
        {
            **{k: v for k, v in SMALL.items() if k != "num_hidden_layers"},
            **NEMOTRON_H,
        },
    ),
    "jamba": (
        "JambaForCausalLM",
        {
            **SMALL,
            "num_experts": 4,
            "attn_layer_period": 3,
            "attn_layer_offset": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "zamba": (
        "ZambaForCausalLM",
        {
            **SMALL,
            "num_hidden_layers": 6,
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
            "n_mamba_heads": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
    "zamba 2, two shared blocks": (
        "Zamba2ForCausalLM",
        {
            **SMALL,
            "num_hidden_layers": 5,
            "layers_block_type": ["hybrid", "mamba", "hybrid", "hybrid", "hybrid"],
            "num_mem_blocks": 2,
            "mamba_d_state": 8,
            "mamba_headdim": 8,
            "mamba_ngroups": 1,
            "adapter_rank": 4,
        },
    ),
    "falcon h1": (
        "FalconH1ForCausalLM",
        {**SMALL, **MAMBA, "head_dim": 8, "mamba_d_ssm": 64, "mamba_expand": 2},
    ),
    "qwen3 next": (
        "Qwen3NextForCausalLM",
        {
            **SMALL,
            **EXPERTS,
            "head_dim": 8,
            "shared_expert_intermediate_size": 24,
            "layer_types": ATTENTION_IN_TWO,
            "mlp_only_layers": [1],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "recurrent gemma": (
        "RecurrentGemmaForCausalLM",
        {**SMALL, "head_dim": 8, "lru_width": 32, "block_types": ["recurrent", "attention"]},
    ),
    "qwen3 moe, some layers dense": (
        "Qwen3MoeForCausalLM",
        {**SMALL, **EXPERTS, "head_dim": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
    "ernie 4.5 moe": (
        "Ernie4_5_MoeForCausalLM",
        {
            **SMALL,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 24,
            "moe_layer_start_index": 1,
            "moe_layer_interval": 2,
        },
    ),
}


def built(name: str, options: dict[str, Any]) -> Any:
    cls: Any = getattr(transformers, name)
    return cls(cls.config_class(**copy.deepcopy(options)))  # configs keep what they are given


def saved(model: Any, folder: Path) -> Path:
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    model.save_pretrained(folder)
    return folder


@of_the_tables_transformers
@pytest.mark.parametrize("name", HYBRIDS)
def test_each_kind_of_layer_has_its_modules_and_sizes(name: str, tmp_path: Path) -> None:
    model = built(*HYBRIDS[name])
    got, live = layout_of(*config_and_tensors(saved(model, tmp_path))), layout_of_model(model)
    assert got is not None
    assert got.modules == live.modules
    assert (got.tied, got.output_modules, got.prefix) == (
        live.tied,
        live.output_modules,
        live.prefix,
    )


def gemma4(*towers: str) -> Any:
    text = {**SMALL, "head_dim": 8, "global_head_dim": 8, "num_kv_shared_layers": 0}
    text |= {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 64}
    given: dict[str, dict[str, Any]] = {
        "vision_config": {**SMALL, "num_hidden_layers": 2, "head_dim": 8, "patch_size": 4},
        "audio_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    }
    options = {name: given[name] for name in towers}
    return built("Gemma4ForConditionalGeneration", {"text_config": text, **options})


TOWERS = [(), ("vision_config",), ("audio_config",), ("vision_config", "audio_config")]


@of_the_tables_transformers
@pytest.mark.parametrize("towers", TOWERS, ids=lambda towers: " and ".join(towers) or "none")
def test_gemma4_has_the_towers_that_its_config_gives(
    towers: tuple[str, ...], tmp_path: Path
) -> None:
    model = gemma4(*towers)
    got, live = layout_of(*config_and_tensors(saved(model, tmp_path))), layout_of_model(model)
    assert got is not None
    assert got.modules == live.modules
    assert ("model.vision_tower" in got.modules) == ("vision_config" in towers)
    assert ("model.audio_tower" in got.modules) == ("audio_config" in towers)


@of_the_tables_transformers
def test_a_tower_that_the_config_leaves_out_is_dropped(tmp_path: Path) -> None:
    config, tensors = config_and_tensors(saved(gemma4("vision_config"), tmp_path / "both"))
    without = layout_of({**config, "vision_config": None}, tensors)
    assert without is not None
    assert without.modules == layout_of_model(gemma4()).modules
    assert without == layout_of({k: v for k, v in config.items() if k != "vision_config"}, tensors)


def validated(base: Any, adapter: Path, tmp_path: Path) -> Any:
    saved(base, tmp_path / "base")
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "base": {"model": "./base", "dtype": "float32"},
                "adapters": {"a": {"source": str(adapter)}},
                "active": "a",
            }
        )
    )
    return adapterdock.validate(manifest)


CASES = {
    "granite 4, dense": ["q_proj", "v_proj", "out_proj"],
    "bamba": ["q_proj", "v_proj", "in_proj"],
    "lfm2": ["q_proj", "in_proj", "w1"],
    "nemotron h": ["q_proj", "in_proj", "up_proj"],
}


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_of_a_hybrid_is_checked_and_fits(name: str, tmp_path: Path) -> None:
    base = built(*HYBRIDS[name])
    adapter = peft_saves(built(*HYBRIDS[name]), tmp_path / "ad", target_modules=CASES[name])
    report = validated(base, adapter.folder, tmp_path)
    assert [f.code for f in report.findings if f.severity.value in ("error", "unchecked")] == []


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_of_a_hybrid_of_other_sizes_is_refused(name: str, tmp_path: Path) -> None:
    cls, options = HYBRIDS[name]
    wider = {**options, "hidden_size": 64}
    if "mamba_n_heads" in options:
        wider["mamba_n_heads"] = 16  # its inner size is twice the hidden size
    adapter = peft_saves(built(cls, wider), tmp_path / "ad", target_modules=CASES[name])
    report = validated(built(cls, options), adapter.folder, tmp_path)
    assert "AD343" in {f.code for f in report.findings}


def test_an_adapter_of_a_tower_needs_the_tower(tmp_path: Path) -> None:
    targets = r".*vision_tower.*q_proj.linear|.*language_model.*q_proj"
    adapter = peft_saves(gemma4("vision_config"), tmp_path / "ad", target_modules=targets)
    report = validated(gemma4("vision_config"), adapter.folder, tmp_path)
    assert [f.code for f in report.findings if f.severity.value in ("error", "unchecked")] == []
    report = validated(gemma4(), adapter.folder, tmp_path / "other")
    assert "AD342" in {f.code for f in report.findings}
