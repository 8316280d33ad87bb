"""Whoever asks, files or the live model, the verdict on an adapter is one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from peft import LoHaConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from support.agreement import (
    KINDS,
    OK,
    REFUSED,
    UNCHECKED,
    Adapter,
    Verdict,
    adapters,
    agree,
    base_facts,
    from_files,
    live,
    tiny_base,
)
from support.peft_adapters import randomise
from support.peft_methods import CASES, saved_by_peft


@pytest.mark.parametrize("kind", KINDS)
def test_files_and_the_live_model_agree_on_every_method(kind: str) -> None:
    model = tiny_base(kind)
    base = base_facts(model)
    assert base.layout is not None
    told: set[str] = set()
    for name, adapter in adapters(base):
        one, other = from_files(adapter, base), live(adapter, model)
        assert agree(one, other), f"{name}: {one}, {other}"
        told.add(one.status)
    assert {OK, REFUSED} <= told


def test_a_disagreement_between_files_and_the_live_model_is_found() -> None:
    here = frozenset({"a"})
    assert agree(Verdict(OK, here), Verdict(OK, here))
    assert not agree(Verdict(OK, here), Verdict(OK, frozenset({"b"})))
    assert not agree(Verdict(OK, here), Verdict(REFUSED))
    assert not agree(Verdict(REFUSED), Verdict(OK, here))
    assert agree(Verdict(UNCHECKED), Verdict(OK, here))


BY_PEFT: dict[str, tuple[str, Any]] = {
    "SigLIP, all linear": ("siglip vision", LoraConfig(target_modules="all-linear")),
    "WavLM": ("wavlm", LoraConfig(target_modules=["q_proj", "v_proj", "output_dense"])),
    "a head": ("bert for sequences", LoraConfig(task_type="SEQ_CLS", target_modules=["query"])),
    "experts": (
        "qwen3_moe",
        LoraConfig(target_modules=["q_proj"], target_parameters=["experts.down_proj"]),
    ),
    "HunYuan's gate": (
        "hunyuan_v1_moe",
        LoraConfig(target_modules=[], target_parameters=["gate.weight", "experts.gate_up_proj"]),
    ),
    "convolutions": ("resnet", LoHaConfig(target_modules=["convolution"])),
    "GPT-2": ("gpt2", LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)),
    "Gemma 4, virtual tokens": (
        "corpus gemma4",
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ),
    "Gemma 4, a prefix": (
        "corpus gemma4",
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ),
    "virtual tokens": ("llama", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
}
REFUSED_OF_PEFT = {"SigLIP, all linear", "WavLM", "Gemma 4, virtual tokens"}
"""Values at what is never called, and tokens that the model cannot look up: PEFT trains neither."""


@pytest.mark.parametrize("name", BY_PEFT)
def test_files_and_the_live_model_agree_on_files_of_peft(name: str, tmp_path: Path) -> None:
    kind, config = BY_PEFT[name]
    model = tiny_base(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = get_peft_model(tiny_base(kind), config)
        randomise(trained, 7)
        trained.save_pretrained(tmp_path)
    adapter = read(tmp_path)
    one, other = from_files(adapter, base_facts(model)), live(adapter, model)
    assert agree(one, other), f"{one}, {other}"
    assert one.status == (REFUSED if name in REFUSED_OF_PEFT else OK), one.why


@pytest.mark.parametrize("method", ["BOFT", "HRA", "MISS", "RANDLORA", "SHIRA"])
def test_files_and_the_live_model_agree_on_methods_through_peft(
    method: str, tmp_path: Path
) -> None:
    model = CASES[method][0]()
    adapter = read(saved_by_peft(method, tmp_path / "it", model).folder)
    one, other = from_files(adapter, base_facts(model)), live(adapter, model)
    assert other.status == OK, other.why
    assert agree(one, other)


def read(folder: Path) -> Adapter:
    config = json.loads((folder / "adapter_config.json").read_text())
    return Adapter(config, load_file(folder / "adapter_model.safetensors"))
