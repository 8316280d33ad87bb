"""The real models that other tests stand on are what they are taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


def test_the_third_party_lora_is_as_published(t5_bias_lora: Path) -> None:
    config = json.loads((t5_bias_lora / "adapter_config.json").read_text())
    tensors = load_file(t5_bias_lora / "adapter_model.safetensors")
    assert (config["r"], sorted(config["target_modules"])) == (16, ["q", "v"])
    assert len(tensors) == 288


def test_the_three_berts_differ_in_nothing_but_their_weights(
    rxnfp_berts: dict[str, Path],
) -> None:
    loaded = [load_file(folder / "model.safetensors") for folder in rxnfp_berts.values()]
    configs = {(folder / "config.json").read_text() for folder in rxnfp_berts.values()}
    shapes = {json.dumps({k: v.shape for k, v in sorted(t.items())}) for t in loaded}
    assert len(loaded) == 3
    assert len(configs) == len(shapes) == 1
    query = "encoder.layer.3.attention.self.query.weight"
    assert not any(torch.equal(loaded[i][query], loaded[j][query]) for i, j in ((0, 1), (1, 2)))


def test_the_encoder_loads_offline(minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(minilm, local_files_only=True)
    inputs = AutoTokenizer.from_pretrained(minilm)("a small test", return_tensors="pt")
    assert model(**inputs).last_hidden_state.shape[-1] == 384
