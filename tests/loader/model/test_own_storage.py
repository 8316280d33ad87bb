"""What ``state_dict`` returns is saved whole by libraries that compare storages."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.weights.own_storage import with_own_storage
from safetensors.torch import load_file, load_model, save_model
from support.peft_adapters import Saved, adapted, attach, logits, peft_saves, tiny_llama


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return peft_saves(
        tiny_llama(),
        tmp_path_factory.mktemp("own") / "it",
        target_modules=["q_proj", "v_proj"],
        modules_to_save=["lm_head"],
    )


def loaded(saved: Saved) -> AdaptedModel:
    model = adapted(tiny_llama(), saved, "one")
    attach(model, saved, "two")
    return model


def created(saved: Saved) -> AdaptedModel:
    model = AdaptedModel(tiny_llama())
    model.add_adapter("one", {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"]})
    model.set_adapter("one")
    return model


KINDS = [loaded, created]


@pytest.mark.parametrize("make", KINDS)
def test_accelerate_saves_and_restores_every_tensor(
    make: Any, saved: Saved, tmp_path: Path
) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(make(saved))
    values = {name: value.clone() for name, value in model.state_dict().items()}
    answer = logits(model)
    accelerator.save_state(str(tmp_path / "state"))
    written = load_file(tmp_path / "state" / "model.safetensors")
    assert written.keys() == values.keys()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.mul_(2)  # the memory is the model's
    assert not torch.equal(logits(model), answer) or make is created  # its B is zero
    accelerator.load_state(str(tmp_path / "state"))
    assert torch.equal(logits(model), answer)
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", KINDS)
def test_safetensors_saves_and_loads_the_model(make: Any, saved: Saved, tmp_path: Path) -> None:
    model = make(saved)
    save_model(model, str(tmp_path / "it.safetensors"))
    assert load_file(tmp_path / "it.safetensors").keys() == model.state_dict().keys()
    assert load_model(model, tmp_path / "it.safetensors") == (set(), [])


def test_the_tensors_of_one_adapter_have_storages_of_their_own(saved: Saved) -> None:
    model = loaded(saved)
    found = adapterdock.get_peft_model_state_dict(model, "one")
    kept = {name: value.clone() for name, value in found.items()}
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in found.values())
    del model
    gc.collect()
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_one_weight_with_two_names_stays_one() -> None:
    both = torch.arange(6.0)[2:]
    one, two = with_own_storage(both), with_own_storage(both)
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr() == both.data_ptr()


def test_other_tensors_are_returned_as_they_are() -> None:
    whole = torch.ones(2, 2)
    for tensor in (whole, whole.t(), torch.ones(4, device="meta")[1:], torch.nn.Parameter(whole)):
        assert with_own_storage(tensor) is tensor
    assert with_own_storage(whole[:0]).shape == (0, 2)
