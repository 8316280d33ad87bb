"""Attaching copies the file's tensors to a device at once; conversions happen there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.weights import tensors as loading
from adapterdock.loader.weights.placement import Placement
from support.peft_adapters import adapted, attach, peft_saves, tensors_of, tiny_llama
from support.transfers import DEVICE, Transfers, on_the_device

CPU = torch.device("cpu")
LINEAR = {"target_modules": "all-linear"}
ATTENTION = {"target_modules": ["q_proj", "v_proj"]}
CASES: dict[str, dict[str, Any]] = {
    "lora": LINEAR,
    "lora with biases": {**LINEAR, "lora_bias": True},
    "lora and a saved head": {**LINEAR, "modules_to_save": ["lm_head"]},
    "lora on embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "ia3": {"kind": peft.IA3Config, **ATTENTION, "feedforward_modules": []},
    "loha": {"kind": peft.LoHaConfig, **ATTENTION, "r": 2},
    "lokr": {"kind": peft.LoKrConfig, **ATTENTION, "r": 2},
    "oft": {"kind": peft.OFTConfig, **ATTENTION, "r": 0, "oft_block_size": 4},
    "ln tuning": {"kind": peft.LNTuningConfig, "target_modules": ["input_layernorm"]},
    "prompt": {
        "kind": peft.PromptTuningConfig,
        "num_virtual_tokens": 3,
        "task_type": "CAUSAL_LM",
    },
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_copied_to_its_device_at_once(
    case: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "it", **CASES[case])
    model = AdaptedModel(on_the_device(tiny_llama()))
    with Transfers() as sent:
        attach(model, saved, dtype=dtype)
    assert sent.sizes == [saved.tensors().data.numel()]
    tensors = list(model.state_dict().values())
    assert {t.device for t in tensors} == {DEVICE}
    assert {t.dtype for t in tensors} == {dtype or torch.float32}


def test_modules_of_several_dtypes_are_still_one_copy(tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "it", **LINEAR, modules_to_save=["lm_head"])
    base = tiny_llama().to(torch.bfloat16)
    base.model.layers[1].float()
    base.lm_head.to(torch.float16)
    model = AdaptedModel(on_the_device(base))
    with Transfers() as sent:
        attach(model, saved)
    assert sent.sizes == [saved.tensors().data.numel()]
    found = {t.dtype for t in model.state_dict().values()}
    assert found == {torch.bfloat16, torch.float32, torch.float16}


def test_an_adapter_on_two_devices_is_one_copy_to_the_other_device(tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "it", target_modules=["q_proj"])
    base = tiny_llama()
    on_the_device(base.model.layers[1])
    model = AdaptedModel(base)
    with Transfers() as sent:
        attach(model, saved)
    there = [t for n, t in model.state_dict().items() if "layers.1." in n]
    assert sent.sizes == [sum(t.numel() * t.element_size() for t in there)]
    here = [t for n, t in model.state_dict().items() if "layers.0." in n]
    assert {t.device for t in there} == {DEVICE}
    assert {t.device for t in here} == {CPU}


def test_only_the_wanted_tensors_are_copied() -> None:
    tensors = {name: torch.randn(8) for name in "abcde"}
    read = tensors_of(tensors)
    with Transfers() as sent:
        read.place({name: Placement(torch.float32, DEVICE) for name in "abde"})
    assert sent.sizes == [64, 64]


@pytest.mark.parametrize("trainable", [False, True])
def test_a_conversion_on_the_device_equals_one_on_the_host(
    trainable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code path for a device, run on the CPU under another device name."""
    saved = peft_saves(tiny_llama(), tmp_path / "it", **LINEAR, modules_to_save=["lm_head"])
    base = tiny_llama().to(torch.bfloat16)
    base.model.layers[1].float()
    model = adapted(base, saved, trainable=trainable)
    here = model.state_dict()
    model.detach()
    monkeypatch.setattr(loading, "HOST", "another")
    there = adapted(base, saved, trainable=trainable).state_dict()
    assert there.keys() == here.keys()
    for name, tensor in here.items():
        assert there[name].dtype is tensor.dtype
        assert torch.equal(there[name], tensor), name
    torch.save(there, tmp_path / "kept.pt")  # refused where a storage holds several dtypes
