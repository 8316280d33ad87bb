"""Bases that torchao and bitsandbytes quantised, on a CPU: adapters give PEFT's logits on the same
base, and adapters that need the weights are refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adapterdock
import peft
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.load_base import load_base
from adapterdock.manifests.findings.errors import AttachError, FingerprintError
from adapterdock.manifests.language.schema import Base
from safetensors.torch import load_file
from support.near import ROUNDINGS, close
from support.peft_adapters import ids, inputs_of, logits, peft_saves, tiny_llama
from support.shelf import write_manifest

SIZE = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}


def torchao(name: str, **data: Any) -> dict[str, Any]:
    kind = {"_type": name, "_version": 2, "_data": data}
    return {"quant_method": "torchao", "quant_type": {"default": kind}}


QUANTISATIONS: dict[str, dict[str, Any]] = {
    "torchao int8": torchao("Int8WeightOnlyConfig"),
    "torchao int4": torchao(
        "IntxWeightOnlyConfig",
        weight_dtype={"_type": "torch.dtype", "_data": "int4"},
        granularity={"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}},
    ),
    "torchao float8": torchao("Float8WeightOnlyConfig"),
    "bitsandbytes 8-bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes nf4": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
    },
}
CASES: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": "all-linear"},
    "lora with biases": {"target_modules": ["q_proj", "up_proj"], "lora_bias": True},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "ia3": {
        "kind": peft.IA3Config,
        "target_modules": ["k_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "loha": {"kind": peft.LoHaConfig, "target_modules": ["q_proj"], "r": 2},
    "lokr": {"kind": peft.LoKrConfig, "target_modules": ["q_proj"], "r": 2},
    "oft": {"kind": peft.OFTConfig, "target_modules": ["q_proj"], "r": 0, "oft_block_size": 4},
    "vera": {"kind": peft.VeraConfig, "target_modules": ["q_proj"], "r": 4},
    "adalora": {"kind": peft.AdaLoraConfig, "target_modules": ["q_proj"], "total_step": 10},
    "ln tuning": {"kind": peft.LNTuningConfig, "target_modules": ["input_layernorm"]},
}
PROMPT: dict[str, Any] = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
NOT_BY_PEFT = {
    ("bitsandbytes nf4", "loha"),
    ("bitsandbytes nf4", "lokr"),
    ("torchao int8", "lora with biases"),
    ("torchao int4", "lora with biases"),
    ("torchao float8", "lora with biases"),
}
"""PEFT 0.21 gives the first two the packed weight's shape, and raises for all."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, ``other`` (another base), and an adapter for each of ``CASES``."""
    folder = tmp_path_factory.mktemp("quantised")
    base = tiny_llama(**SIZE)
    base.save_pretrained(folder / "base")
    for case, config in CASES.items():
        peft_saves(base, folder / case, **config)
    peft_saves(base, folder / "prompt", kind=peft.PromptTuningConfig, **PROMPT)
    peft_saves(base, folder / "dora", target_modules=["q_proj"], use_dora=True)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(1.01)
    base.save_pretrained(folder / "other")
    return folder


@pytest.fixture(scope="module")
def quantised(folder: Path) -> Callable[[str], Any]:
    """The base, quantised as named, loaded once."""
    known: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in known:
            known[name] = loaded(name, folder / "base")
        return known[name]

    return load


def loaded(name: str, base: Path) -> Any:
    return load_base(Base(dtype="float32", quantization=QUANTISATIONS[name]), base)[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", QUANTISATIONS)
def test_an_adapter_equals_pefts_on_the_same_base(
    name: str, case: str, folder: Path, quantised: Callable[[str], Any]
) -> None:
    base = quantised(name)
    alone = logits(base)
    assert 1e-3 < (alone - logits(tiny_llama(**SIZE))).abs().max() < 1.0
    model = AdaptedModel(base)
    model.load_adapter(folder / case, "it")
    model.set_adapter("it")
    answer = logits(model)
    assert (answer - alone).abs().max() > 0.1
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    rows = logits(model, adapter_names=["it", "__base__"])
    # these round their input, by a scale that depends on the largest row of the batch
    coarse = torch.int8 if name == "bitsandbytes 8-bit" else None
    assert close(rows[0], answer[0], 8 if coarse else ROUNDINGS, computed_in=coarse)
    assert close(rows[1], alone[1], 8 if coarse else ROUNDINGS, computed_in=coarse)
    if (name, case) not in NOT_BY_PEFT:
        oracle = peft.PeftModel.from_pretrained(loaded(name, folder / "base"), folder / case)
        assert close(answer, logits(oracle.eval(), inputs_of(base)))
    generated = model.generate(ids(), max_new_tokens=3, do_sample=False)
    assert generated.shape == (2, 10)
    model.delete_adapter("it")
    assert torch.equal(logits(base), alone)


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_virtual_tokens_equal_pefts(
    name: str, folder: Path, quantised: Callable[[str], Any]
) -> None:
    model = AdaptedModel(quantised(name))
    model.load_adapter(folder / "prompt", "it")
    model.set_adapter("it")
    oracle = peft.PeftModel.from_pretrained(loaded(name, folder / "base"), folder / "prompt")
    theirs = logits(oracle.eval(), inputs_of(model.base_model))
    assert close(logits(model), theirs)
    model.detach()


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_adapters_that_need_the_weights_are_refused(
    name: str, folder: Path, quantised: Callable[[str], Any]
) -> None:
    base = quantised(name)
    alone = logits(base)
    model = AdaptedModel(base)
    with pytest.raises(AttachError) as caught:
        model.load_adapter(folder / "dora", "dora")
    assert caught.value.code == "AD712"
    assert "quantised" in str(caught.value)
    model.load_adapter(folder / "lora", "it")
    model.set_adapter("it")
    answer = logits(model)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    quantised_linears = 14
    assert [f.code for f in caught.value.findings] == ["AD758"] * quantised_linears
    assert torch.equal(logits(model), answer)
    assert model.detach() is base
    assert torch.equal(logits(base), alone)


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_a_quantised_base_is_compared_by_its_readable_tensors(
    name: str, folder: Path, quantised: Callable[[str], Any], tmp_path: Path
) -> None:
    manifest = write_manifest(
        tmp_path,
        base={"model": folder / "base"},
        adapters={"it": {"source": folder / "lora"}},
    )
    with pytest.raises(FingerprintError) as caught:
        adapterdock.attach(quantised(name), manifest)
    findings = {finding.code: finding for finding in caught.value.findings}
    assert findings.keys() <= {"AD435", "AD432"}  # packed: other shapes too
    assert findings["AD435"].found == "6 of 20 tensors match"
    assert "14 tensors could not be read" in str(findings["AD435"])
    model = adapterdock.attach(quantised(name), manifest, accept=sorted(findings))
    assert list(model.adapters) == ["it"]
    model.detach()
    with pytest.raises(FingerprintError) as caught:
        adapterdock.attach(loaded(name, folder / "other"), manifest, accept=sorted(findings))
    assert "AD407" in [finding.code for finding in caught.value.findings]


@pytest.mark.parametrize("name", ["torchao int8", "bitsandbytes nf4"])
def test_a_manifest_can_declare_the_quantisation(name: str, folder: Path, tmp_path: Path) -> None:
    """As a manifest writes it; the adapter uses a half-precision compute dtype too."""
    quantization = dict(QUANTISATIONS[name])
    if name == "bitsandbytes nf4":
        quantization["bnb_4bit_compute_dtype"] = "bfloat16"
    manifest = write_manifest(
        tmp_path,
        base={"model": folder / "base", "dtype": "bfloat16", "quantization": quantization},
        adapters={"it": {"source": folder / "lora"}},
        active="it",
    )
    model = adapterdock.load(manifest)
    assert logits(model).dtype is torch.bfloat16
    assert {t.dtype for t in model.state_dict().values()} == {torch.bfloat16}
    stored = load_file(folder / "lora" / "adapter_model.safetensors")
    assert len(model.state_dict()) == len(stored)
    again = adapterdock.load(manifest)
    assert torch.equal(logits(again), logits(model))
