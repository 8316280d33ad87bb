"""Adapters in memory become the two files that a folder would hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from adapterdock.loader.build.in_memory import files_in, files_of
from adapterdock.manifests.findings.errors import AttachError
from peft import AdaLoraConfig, IA3Config, LoraConfig
from safetensors.torch import load

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TENSORS = {"a": torch.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules={"v_proj", "q_proj"}, task_type="CAUSAL_LM"),
        LoraConfig(target_modules="all-linear", rank_pattern={"q": 3}),
        IA3Config(target_modules=["a"], feedforward_modules=["a"]),
        AdaLoraConfig(target_modules=["a"], total_step=5),
        {"peft_type": "LORA", "target_modules": {"b", "a"}},
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_config_is_written_as_peft_writes_it(config: Any, tmp_path: Any) -> None:
    written = json.loads(files_of(config, TENSORS)[CONFIG])
    if isinstance(config, dict):
        assert written == {"peft_type": "LORA", "target_modules": ["a", "b"]}
        return
    config.save_pretrained(str(tmp_path))
    peft = json.loads((tmp_path / CONFIG).read_text())
    for fields in (written, peft):
        if isinstance(fields.get("target_modules"), list):
            fields["target_modules"] = sorted(fields["target_modules"])
    assert {k: v for k, v in written.items() if k in peft} == peft
    assert not {k: v for k, v in written.items() if k not in peft and v}


def test_tensors_may_share_memory_be_views_or_have_any_float_dtype() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    given = {
        "whole": whole,
        "same": whole,
        "view": whole.T[1:],
        "half": whole.bfloat16(),
        "parameter": torch.nn.Parameter(whole),
    }
    back = load(files_of({}, given)[WEIGHTS])
    assert {n: t.dtype for n, t in back.items()} == {n: t.dtype for n, t in given.items()}
    assert all(torch.equal(back[name], tensor) for name, tensor in given.items())


def test_bytes_are_used_unchanged() -> None:
    assert files_of(b"{}", bytearray(b"xy")) == {CONFIG: b"{}", WEIGHTS: b"xy"}


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (None, TENSORS),
        ("./tone", TENSORS),
        (LoraConfig, TENSORS),
        ({"r": object()}, TENSORS),
        ({}, None),
        ({}, [torch.ones(1)]),
        ({}, {"a": [1.0]}),
        ({}, {1: torch.ones(1)}),
        ({}, {"a": torch.ones(2).to_sparse()}),
        ({}, {"a": torch.ones(2, device="meta")}),
    ],
)
def test_anything_else_in_memory_is_a_finding(config: Any, weights: Any) -> None:
    with pytest.raises(AttachError) as caught:
        files_of(config, weights)
    assert caught.value.code == "AD781"


def test_a_folder_in_memory_may_have_more_files() -> None:
    files = files_in({CONFIG: {"r": 1}, WEIGHTS: TENSORS, "tokenizer.json": bytearray(b"{}")})
    assert files["tokenizer.json"] == b"{}"
    assert json.loads(files[CONFIG]) == {"r": 1}
    for bad in (None, [], {CONFIG: {}}, {CONFIG: {}, WEIGHTS: TENSORS, "tokenizer.json": "{}"}):
        with pytest.raises(AttachError) as caught:
            files_in(bad)
        assert caught.value.code == "AD781"
