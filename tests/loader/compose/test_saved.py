"""A composition saved as an adapter of its own: PEFT reads it and gives our answer; so do we."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support.combinations import ALL, options_of, with_adapters
from support.near import close
from support.peft_adapters import (
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    randomise,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
)
from torch import nn

MIXES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "llama": (
        tiny_llama,
        {"target_modules": ["q_proj", "v_proj", "lm_head"]},
        {"target_modules": ["v_proj", "up_proj"]},
    ),
    "gpt2": (
        tiny_gpt2,
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
        {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    ),
    "embedded": (
        tiny_llama,
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["q_proj"], "use_rslora": True},
    ),
    "headed": (
        tiny_llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "biased": (
        tiny_gpt2,
        {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"},
        {"target_modules": ["c_proj"], "fan_in_fan_out": True},
    ),
    "lora_bias": (
        tiny_llama,
        {"target_modules": ["q_proj"], "lora_bias": True},
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "convolutions": (
        tiny_conv,
        {"target_modules": ["first", "grouped", "head"]},
        {"target_modules": ["first", "line", "deep"]},
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, AdaptedModel]]:
    root: Path = tmp_path_factory.mktemp("mixes")
    found: dict[str, tuple[Any, AdaptedModel]] = {}
    for name, (base, first, second) in MIXES.items():
        one = peft_saves(base(), root / name / "one", seed=1, **first)
        two = peft_saves(base(), root / name / "two", seed=2, **second)
        found[name] = (base, with_adapters(base(), one=one, two=two))
    return found


@pytest.mark.parametrize("name", list(MIXES))
@pytest.mark.parametrize("method", ALL)
def test_peft_reads_the_saved_combination_and_gives_our_output(
    method: str, name: str, models: dict[str, tuple[Any, AdaptedModel]], tmp_path: Path
) -> None:
    base, model = models[name]
    composition = f"mix-{method.replace('_', '-')}"
    of = {"one": 1.0, "two": -0.4}
    model.define_composition(composition, of, combine=method, **options_of(method))
    model.save_composition(tmp_path / "mix", composition)
    inputs = inputs_of(model.get_base_model())
    wanted = logits(model, inputs, adapter=composition)
    assert close(logits(peft_loads(base(), tmp_path / "mix"), inputs), wanted)

    if name in ("lora_bias", "convolutions"):
        return
    again = AdaptedModel(base())
    again.load_adapter(tmp_path / "mix", "mix")
    assert close(logits(again, inputs, adapter="mix"), wanted)


@pytest.mark.parametrize(
    ("second", "wanted"), [("acme/desk", "acme/desk"), ("acme/other", None), (None, None)]
)
def test_it_records_the_base_that_all_members_record(
    second: str | None, wanted: str | None, tmp_path: Path
) -> None:
    for name, base in (("one", "acme/desk"), ("two", second)):
        peft_saves(tiny_llama(), tmp_path / name, target_modules=["q_proj"])
        path = tmp_path / name / "adapter_config.json"
        config = json.loads(path.read_bytes()) | {"base_model_name_or_path": base}
        path.write_text(json.dumps(config))
    model = AdaptedModel(tiny_llama())
    for name in ("one", "two"):
        model.load_adapter(tmp_path / name, name, accept=["AD364"])
    model.define_composition("inner", {"one": 1.0, "two": 0.5}, combine="cat")
    model.define_composition("outer", {"inner": 1.0, "one": 0.5})
    for name in ("inner", "outer"):
        model.save_composition(tmp_path / "mix", name)
        config = json.loads((tmp_path / "mix" / "adapter_config.json").read_bytes())
        assert config["base_model_name_or_path"] == wanted


def test_a_sum_becomes_one_lora_of_the_ranks_together(
    models: dict[str, tuple[Any, AdaptedModel]], tmp_path: Path
) -> None:
    _, model = models["llama"]
    model.define_composition("sum", {"one": 0.5, "two": {"*.layers.0.*": 2.0}})
    model.save_composition(tmp_path, "sum")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    layers = "base_model.model.model.layers"
    assert tensors[f"{layers}.0.self_attn.v_proj.lora_A.weight"].shape[0] == 8
    assert tensors[f"{layers}.1.self_attn.v_proj.lora_A.weight"].shape[0] == 4
    assert f"{layers}.1.mlp.up_proj.lora_A.weight" not in tensors
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM" and config["peft_type"] == "LORA"
    assert close(logits(peft_loads(tiny_llama(), tmp_path)), logits(model, adapter="sum"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


class Nested(nn.Module):
    """Modules whose names end alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj = nn.Linear(4, 4)
        self.deep = nn.ModuleDict({"proj": nn.Linear(4, 4), "other": nn.Linear(4, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deep["other"](self.deep["proj"](self.proj(x)))


def test_modules_whose_names_end_as_a_targets_stay_the_bases(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(3, 4, generator=torch.Generator().manual_seed(1))}
    folder = tmp_path / "one"
    trained = get_peft_model(Nested(), LoraConfig(r=2, target_modules="proj"))
    randomise(trained)
    trained.save_pretrained(str(folder))
    model = AdaptedModel(Nested())
    model.load_adapter(folder, "one")
    assert model.adapters["one"].modules == ("proj",)
    model.define_composition("half", {"one": 0.5})
    model.save_composition(tmp_path / "saved", "half")
    peft = peft_loads(Nested(), tmp_path / "saved")
    assert close(logits(peft, inputs), logits(model, inputs, adapter="half"))
    assert not any("deep.proj.lora" in name for name, _ in peft.named_parameters())


def test_a_folder_that_cannot_be_written_is_reported(
    models: dict[str, tuple[Any, AdaptedModel]], tmp_path: Path
) -> None:
    _, model = models["llama"]
    model.define_composition("some", {"one": 1.0})
    (tmp_path / "file").write_text("here")
    with pytest.raises(AttachError) as caught:
        model.save_composition(tmp_path / "file", "some")
    assert caught.value.code == "AD727"
    assert (tmp_path / "file").read_text() == "here"
    with pytest.raises(RoutingError, match="is an adapter, not a composition"):
        model.save_composition(tmp_path, "one")


def test_a_combination_without_factors_is_not_saved(
    models: dict[str, tuple[Any, AdaptedModel]], tmp_path: Path
) -> None:
    _, model = models["headed"]
    model.define_composition("head", {"one": {"lm_head": 1.0, "*": 0.0}})
    with pytest.raises(AttachError) as caught:
        model.save_composition(tmp_path, "head")
    assert caught.value.code == "AD727"
    assert not list(tmp_path.iterdir())
