"""Saved adapters: PEFT loads them, and they record their base."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, FitError, RoutingError
from adapterdock.registry.files.facts import BASE_RECORD
from adapterdock.registry.lock import lock
from adapterdock.registry.validate import validate
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
)

LORAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.1}),
    "patterns": (
        tiny_llama,
        {
            "target_modules": "all-linear",
            "rank_pattern": {"layers.0.self_attn.q_proj": 6},
            "alpha_pattern": {"v_proj": 3},
            "use_rslora": True,
        },
    ),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "v_proj"]}),
    "replacements": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "biases": (tiny_bert, {"target_modules": ["query"], "bias": "all"}),
    "head": (tiny_bert, {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
    "Conv1D": (tiny_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "convolutions": (
        tiny_conv,
        {"target_modules": ["first", "line"], "modules_to_save": ["head", "norm"]},
    ),
}


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return peft_saves(tiny_llama(), tmp_path / "saved", target_modules=["q_proj", "v_proj"])


def from_disk(base: Any, saved: Saved) -> AdaptedModel:
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it", accept=["AD364"])
    model.set_adapter("it")
    return model


def record_of(folder: Path) -> dict[str, Any]:
    with safe_open(str(folder / "adapter_model.safetensors"), "pt") as file:
        return json.loads(file.metadata()[BASE_RECORD])


def other_llama() -> Any:
    """The same shape, other values."""
    model = tiny_llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    return model


@pytest.mark.parametrize("kind", LORAS)
def test_peft_loads_what_was_saved_and_gives_our_logits(kind: str, tmp_path: Path) -> None:
    make, config = LORAS[kind]
    first = peft_saves(make(), tmp_path / "first", **config)
    model = from_disk(make(), first)
    model.save_adapter(tmp_path / "again", "it")

    assert close(logits(model), first.answer)
    theirs = logits(peft_loads(make(), tmp_path / "again"), inputs_of(make()))
    assert close(logits(model), theirs)
    back = from_disk(make(), Saved(tmp_path / "again", first.answer))
    assert torch.equal(logits(back), logits(model))


@pytest.mark.parametrize("kind", LORAS)
def test_saved_files_equal_pefts(kind: str, tmp_path: Path) -> None:
    make, config = LORAS[kind]
    first = peft_saves(make(), tmp_path / "first", **config)
    from_disk(make(), first).save_adapter(tmp_path / "again", "it")

    old = load_file(tmp_path / "first" / "adapter_model.safetensors")
    new = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert new.keys() <= old.keys()
    assert all(torch.equal(new[key], old[key]) for key in new)
    left_out = {key.removesuffix(".weight").rpartition(".")[2] for key in old.keys() - new.keys()}
    assert left_out <= {"base_layer"}, "the base's own embedding, that PEFT wrote beside"
    config_again = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert config_again == first.config
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]


def test_saved_names_have_pefts_prefix(tmp_path: Path, saved: Saved) -> None:
    tensors = load_file(saved.file)
    short = {key.removeprefix("base_model.model."): value for key, value in tensors.items()}
    model = AdaptedModel(tiny_llama())
    model.load_adapter(None, "it", peft_config=saved.config, adapter_state_dict=short)
    model.save_adapter(tmp_path / "again", "it")
    assert load_file(tmp_path / "again" / "adapter_model.safetensors").keys() == tensors.keys()


def test_trained_values_are_saved(tmp_path: Path, saved: Saved) -> None:
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, "it", trainable=True)
    model.set_adapter("it")
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["it"].resident.parameters.values():
            parameter.add_(0.1)
    model.save_adapter(tmp_path / "again", "it")
    theirs = logits(peft_loads(tiny_llama(), tmp_path / "again"), inputs_of(tiny_llama()))
    assert close(logits(model), theirs)
    assert differs(saved.answer, theirs)


def test_the_dtype_of_the_factors_is_kept(tmp_path: Path, saved: Saved) -> None:
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, "it", dtype="bfloat16")
    model.save_adapter(tmp_path / "again", "it")
    tensors = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_an_adapter_without_a_config_and_unknown_names_are_refused(
    tmp_path: Path, saved: Saved
) -> None:
    model = adapted(tiny_llama(), saved)
    with pytest.raises(AttachError) as caught:
        model.save_adapter(tmp_path / "again", "it")
    assert caught.value.code == "AD793"
    assert not (tmp_path / "again").exists()
    with pytest.raises(RoutingError):
        model.save_adapter(tmp_path / "again", "other")


def test_an_unwritable_folder_is_an_error_and_keeps_its_files(
    tmp_path: Path, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = from_disk(tiny_llama(), saved)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AttachError) as caught:
        model.save_adapter(tmp_path / "file", "it")
    assert caught.value.code == "AD794"

    model.save_adapter(tmp_path / "again", "it")
    before = {path: path.read_bytes() for path in (tmp_path / "again").iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["it"].resident.parameters.values():
            parameter.mul_(2)
    with pytest.raises(AttachError):
        model.save_adapter(tmp_path / "again", "it")
    assert {path: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


# -- the base's record ---------------------------------------------------------------------


def test_the_recorded_base_is_distinguished_from_others_of_its_shape(
    tmp_path: Path, saved: Saved
) -> None:
    from_disk(tiny_llama(), saved).save_adapter(tmp_path / "again", "it")
    assert {"architecture", "structure", "config", "weights"} <= record_of(
        tmp_path / "again"
    ).keys()

    same = AdaptedModel(tiny_llama())
    same.load_adapter(tmp_path / "again", "it")
    other = AdaptedModel(other_llama())
    with pytest.raises(FitError) as caught:
        other.load_adapter(tmp_path / "again", "it")
    assert "AD380" in {finding.code for finding in caught.value.findings}
    assert not other._host.adapters.by_name


def test_the_same_base_in_another_dtype_is_the_same(tmp_path: Path, saved: Saved) -> None:
    from_disk(tiny_llama(), saved).save_adapter(tmp_path / "again", "it")
    half = AdaptedModel(tiny_llama().to(torch.bfloat16))
    half.load_adapter(tmp_path / "again", "it")
    assert "it" in half._host.adapters.by_name


def test_a_proven_base_needs_no_name(tmp_path: Path) -> None:
    base = tiny_llama()
    base.name_or_path = "acme/somewhere"
    saved = peft_saves(base, tmp_path / "saved", target_modules=["q_proj"])
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, "it")
    model.save_adapter(tmp_path / "again", "it")
    renamed = tiny_llama()
    renamed.config._name_or_path = "acme/elsewhere"
    with pytest.raises(FitError):
        AdaptedModel(renamed).load_adapter(saved.folder, "it")
    AdaptedModel(renamed).load_adapter(tmp_path / "again", "it")


def test_a_random_head_is_ignored_in_the_record(tmp_path: Path) -> None:
    saved = peft_saves(
        tiny_bert(), tmp_path / "saved", target_modules=["query"], task_type="SEQ_CLS"
    )
    from_disk(tiny_bert(), saved).save_adapter(tmp_path / "again", "it")
    base = tiny_bert()
    torch.nn.init.normal_(base.classifier.weight)
    AdaptedModel(base).load_adapter(tmp_path / "again", "it")


def test_an_unreadable_record_is_unchecked(tmp_path: Path, saved: Saved) -> None:
    tensors = load_file(saved.file)
    for text in ("nonsense", "[]", '{"structure": "v2:blake:0"}'):
        save_file(tensors, saved.file, {"format": "pt", BASE_RECORD: text})
        model = AdaptedModel(tiny_llama())
        with pytest.raises(FitError) as caught:
            model.load_adapter(saved.folder, "it")
        assert "AD382" in {finding.code for finding in caught.value.findings}
        model.load_adapter(saved.folder, "it", accept=["AD382"])


def test_the_record_follows_changed_base_weights(tmp_path: Path, saved: Saved) -> None:
    model = from_disk(tiny_llama(), saved)
    first = model._host.live.measured
    assert model._host.live.measured is first
    with torch.no_grad():
        for parameter in model.base_model.parameters():
            parameter.mul_(2)
    assert model._host.live.measured.fingerprint.weights != first.fingerprint.weights


def test_validate_and_lock_check_the_recorded_base_without_torch(
    tmp_path: Path, saved: Saved
) -> None:
    from_disk(tiny_llama(), saved).save_adapter(tmp_path / "again", "it")
    for name, base in (("base", tiny_llama()), ("other", other_llama())):
        base.save_pretrained(tmp_path / name)
        manifest = {
            "version": 1,
            "base": {"model": f"./{name}"},
            "adapters": {"it": {"source": "./again"}},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    assert validate(tmp_path / "base.yaml").ok
    found = validate(tmp_path / "other.yaml")
    assert [finding.code for finding in found.errors] == ["AD380"]
    lock(tmp_path / "base.yaml")
    with pytest.raises(FitError) as caught:
        lock(tmp_path / "other.yaml")
    assert caught.value.code == "AD380"


def test_a_copy_of_the_base_is_the_same_base(tmp_path: Path, saved: Saved) -> None:
    base = tiny_llama()
    from_disk(copy.deepcopy(base), saved).save_adapter(tmp_path / "again", "it")
    AdaptedModel(base).load_adapter(tmp_path / "again", "it")
