"""A model saved to a folder, and loaded again."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import yaml
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.lifecycle.save_model import SaveWarning
from adapterdock.manifests.findings.errors import (
    AttachError,
    FingerprintError,
    PolicyError,
    RoutingError,
    UsageError,
)
from adapterdock.registry.validate import validate
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from support.near import close
from support.peft_adapters import adapted, ids, logits, peft_saves, tiny_bert, tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def manifest(tmp_path: Path, base_folder: Path) -> Path:
    peft_saves(tiny_llama(), tmp_path / "one", seed=1, target_modules=["q_proj", "v_proj"])
    config = {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}
    peft_saves(tiny_llama(), tmp_path / "two", seed=2, **config)
    peft_saves(tiny_llama(), tmp_path / "three", seed=3, target_modules=["down_proj"])
    data: dict[str, Any] = {
        "version": 1,
        "name": "desk",
        "base": {"model": "./base", "dtype": "float32"},
        "adapters": {
            "one": {"source": "./one", "owner": "us", "tags": ["a", "b"]},
            "two": {"source": "./two"},
            "three": {"source": "./three", "trainable": True},
        },
        "compositions": {"mix": {"of": {"one": 0.75, "three": 0.5}}},
        "rules": {"exclusive": [["one", "two"]]},
        "active": "mix",
    }
    (tmp_path / "desk.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "desk.yaml"


def load(source: Path) -> AdaptedModel:
    return adapterdock.load(source)


def answers(model: AdaptedModel) -> list[torch.Tensor]:
    choices = (None, "one", "two", "three", "mix")
    return [logits(model, {"input_ids": ids()}, adapter=choice) for choice in choices]


def test_a_saved_model_loads_again(manifest: Path, tmp_path: Path) -> None:
    first = load(manifest)
    first.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(answers(first), answers(again), strict=True))
    assert again.active_weights() == first.active_weights() == {"one": 0.75, "three": 0.5}
    assert again.compositions == first.compositions
    assert {n: a.trainable for n, a in again.adapters.items()} == {
        "one": False,
        "two": False,
        "three": True,
    }
    with pytest.raises(PolicyError):
        again.set_adapter(["one", "two"])
    assert again.deployment is not None
    assert again.deployment.file.manifest.adapters["one"].owner == "us"
    assert again.deployment.file.manifest.name == "desk"
    assert validate(tmp_path / "out").ok

    again.save_pretrained(tmp_path / "third")
    third = load(tmp_path / "third")
    assert all(torch.equal(a, b) for a, b in zip(answers(first), answers(third), strict=True))


def test_the_base_is_not_written(manifest: Path, tmp_path: Path) -> None:
    load(manifest).save_pretrained(tmp_path / "out")
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "adapter_config.json",  # the one that is trained
        "adapter_model.safetensors",
        "adapterdock.yaml",
        "model.safetensors",
        "one/adapter_config.json",
        "one/adapter_model.safetensors",
        "two/adapter_config.json",
        "two/adapter_model.safetensors",
    ]
    with safe_open(str(tmp_path / "out" / "model.safetensors"), "pt") as file:
        assert all(".three." in name for name in file.keys())  # noqa: SIM118


def test_another_base_in_the_saved_place_is_refused(
    manifest: Path, base_folder: Path, tmp_path: Path
) -> None:
    load(manifest).save_pretrained(tmp_path / "out")
    other = tiny_llama()
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    other.save_pretrained(base_folder)
    with pytest.raises(adapterdock.AdapterdockError):
        load(tmp_path / "out")


def test_the_saved_manifest_names_a_base_loaded_by_transformers(
    base_folder: Path, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    model = AdaptedModel(LlamaForCausalLM.from_pretrained(base_folder))
    model.add_adapter("new", LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.set_adapter({"new": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaveWarning)
        model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.active_weights() == {"new": 0.5}
    assert torch.equal(logits(again, {"input_ids": ids()}), logits(model, {"input_ids": ids()}))


def test_a_base_in_memory_gives_a_warning(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_llama())
    model.add_adapter("new", LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.set_adapter("new")
    with pytest.warns(SaveWarning, match="AD798"):
        model.save_pretrained(tmp_path / "out")
    with pytest.raises(UsageError):
        load(tmp_path / "out")
    again = adapterdock.attach(tiny_llama(), tmp_path / "out")
    assert again.active_adapters() == ["new"]
    assert torch.equal(logits(again), logits(model))
    other = tiny_llama()
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    with pytest.raises(FingerprintError):
        adapterdock.attach(other, tmp_path / "out")


def test_a_random_head_does_not_make_it_another_base(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_bert())
    model.add_adapter("new", LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS"))
    with pytest.warns(SaveWarning):
        model.save_pretrained(tmp_path / "out")
    other = tiny_bert()
    nn.init.normal_(other.classifier.weight)
    assert "new" in adapterdock.attach(other, tmp_path / "out")._host.adapters.by_name


def test_rules_given_as_a_function_give_a_warning(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_llama())
    model.rules = lambda active: []
    with pytest.warns(SaveWarning, match="AD799"):
        model.save_pretrained(tmp_path / "out")


def test_an_adapter_without_a_config_is_refused_before_writing(tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "saved", target_modules=["q_proj"])
    model = adapted(tiny_llama(), saved)
    with pytest.raises(AttachError) as caught:
        model.save_pretrained(tmp_path / "out")
    assert caught.value.code == "AD793"
    assert not (tmp_path / "out").exists()


def test_capitals_in_names_are_kept(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    saved = peft_saves(tiny_llama(), tmp_path / "saved", target_modules=["q_proj"])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "Billing-EU")
    model.set_adapter("Billing-EU")
    model.save_pretrained(tmp_path / "out")
    assert (tmp_path / "out" / "Billing-EU" / "adapter_config.json").is_file()
    again = load(tmp_path / "out")
    assert again.active_adapters() == ["Billing-EU"]
    assert close(logits(again), saved.answer)


@pytest.mark.parametrize("name", ["Adapterdock.yaml", "adapter_config.json", "model.safetensors"])
def test_a_name_that_equals_a_model_file_is_refused(name: str, tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "saved", target_modules=["q_proj"])
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, name)
    with pytest.raises(AttachError, match=name):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_process_writes_nothing(tmp_path: Path) -> None:
    AdaptedModel(tiny_llama()).save_pretrained(tmp_path / "out", is_main_process=False)
    assert not (tmp_path / "out").exists()


# -- unwrapping ----------------------------------------------------------------------------


def test_the_base_is_extracted_from_all_wrappers() -> None:
    base = tiny_llama()
    assert adapterdock.extract_base_model(AdaptedModel(base)) is base
    assert adapterdock.extract_base_model(nn.DataParallel(AdaptedModel(base))) is base
    theirs = copy.deepcopy(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(theirs, LoraConfig(r=4, target_modules=["q_proj"]))
    assert adapterdock.extract_base_model(wrapped) is theirs


def test_an_unwrapped_model_is_returned_as_it_is() -> None:
    for model in (tiny_llama(), nn.Linear(2, 2), object(), None):
        assert adapterdock.extract_base_model(model) is model


def test_recipes_and_weights_by_module_are_saved(manifest: Path, tmp_path: Path) -> None:
    model = load(manifest)
    model.set_adapter(None)
    model.delete_composition("mix")
    model.define_composition("by-module", {"one": {"*.0.*": 0.5, "*": 2.0}, "three": 1.0})
    model.define_composition(
        "pruned", {"one": 0.7, "three": 0.3}, combine="dare_ties", density=0.5, seed=7
    )
    model.set_adapter({"one": {"*.1.*": 0.25}, "three": 0.5})
    choices = ("by-module", "pruned", {"one": {"*.1.*": 0.25}, "three": 0.5})
    before = [logits(model, {"input_ids": ids()}, adapter=choice) for choice in choices]
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.recipes["pruned"].combine == "dare_ties"
    assert list(again.compositions) == ["by-module", "pruned", "active"]
    assert again.active_weights() == model.active_weights()
    for choice, expected in zip(choices, before, strict=True):
        assert torch.equal(logits(again, {"input_ids": ids()}, adapter=choice), expected)


def test_while_merged_a_plain_model_is_written(manifest: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = load(manifest)
    model.set_adapter("two")
    model.merge_adapter()
    expected = logits(model, {"input_ids": ids()})
    with pytest.warns(SaveWarning, match="AD746.*one, three"):
        model.save_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(plain), expected)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    with pytest.raises(RoutingError) as caught:
        model.save_adapter(tmp_path / "adapter", "one")
    assert [found.code for found in caught.value.findings] == ["AD756"]


def test_a_default_that_a_manifest_cannot_express_gives_a_warning(
    manifest: Path, tmp_path: Path
) -> None:
    model = load(manifest)
    model.define_composition("made", {"one": 1.0, "three": 1.0}, combine="cat")
    model.set_adapter({"made": 0.5, "one": 0.25})
    with pytest.warns(SaveWarning, match="AD747"):
        model.save_pretrained(tmp_path / "out")
    assert load(tmp_path / "out").active_adapters() == []
    model.set_adapter({"made": 1.0, "one": 0.25})
    expected = logits(model, {"input_ids": ids()})
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.active_weights() == {"one": 0.25, "made": 1.0}
    assert close(logits(again, {"input_ids": ids()}), expected)
