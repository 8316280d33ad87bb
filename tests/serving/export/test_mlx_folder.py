"""The folders for mlx-lm, read as adapterdock reads adapters that mlx-lm wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.serving.export.architectures import ARCHITECTURES
from adapterdock.serving.export.mlx_folder import outside, write_mlx
from support.exported import (
    CONFIGS,
    LINEAR,
    base_to_export,
    dense_of,
    peft_deltas,
    refused,
)
from support.near import close
from support.peft_adapters import peft_saves


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_folder_holds_the_change_that_peft_computes(
    config: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    model = base_to_export("Qwen2ForCausalLM")
    saved = peft_saves(model, tmp_path / "it", target_modules=[*LINEAR], **config)
    folder = tmp_path / "mlx"
    folder.mkdir()
    write_mlx(folder, dense_of(model, saved.folder, "MLX"), 2, "org/base")
    wanted = peft_deltas(model, saved.folder)
    again = dense_of(model, folder)
    assert {*again.ranks.values()} == {max(dense_of(model, saved.folder).ranks.values())}
    found = {module: torch.tensor(pair.b @ pair.a).float() for module, pair in again.pairs()}
    assert found.keys() == wanted.keys()
    for module, delta in wanted.items():
        assert close(found[module], delta), module


def test_only_the_last_layers_are_named_where_the_first_are_not_adapted(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM")
    targets = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    saved = peft_saves(model, tmp_path / "it", **targets)
    folder = tmp_path / "mlx"
    folder.mkdir()
    write_mlx(folder, dense_of(model, saved.folder, "MLX"), 2, None)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["num_layers"] == 1
    assert config["lora_parameters"]["keys"] == ["self_attn.q_proj"]
    assert config["lora_parameters"]["scale"] == 1.0


def test_a_head_is_refused(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM")
    alone = {"save_embedding_layers": False}
    saved = peft_saves(model, tmp_path / "it", target_modules=["lm_head"], save=alone)
    lora = dense_of(model, saved.folder, "MLX")
    (finding,) = outside(lora, ARCHITECTURES["LlamaForCausalLM"], Where())
    assert (finding.code, finding.found) == ("AD983", "lm_head")


def test_dora_is_refused(tmp_path: Path) -> None:
    model = base_to_export("LlamaForCausalLM")
    saved = peft_saves(model, tmp_path / "it", target_modules=["q_proj"], use_dora=True)
    assert "DoRA" in (refused(model, saved.folder, "MLX").found or "")
