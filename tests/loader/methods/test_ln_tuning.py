"""LN tuning: the adapter's norms replace the base's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import AdapterFacts
from peft import LNTuningConfig, TrainableTokensConfig
from safetensors.torch import load_file
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tensors_of,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    traces,
)

OPTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "llama": (tiny_llama, {"target_modules": ["input_layernorm", "norm"]}),
    "tied": (lambda: tiny_llama(tie_word_embeddings=True), {"target_modules": r".*norm"}),
    "gpt2": (tiny_gpt2, {"target_modules": ["ln_1", "ln_f"]}),
    "bert": (tiny_bert, {"target_modules": ["LayerNorm"], "task_type": "SEQ_CLS"}),
    "excluded": (
        tiny_llama,
        {"target_modules": r".*norm", "exclude_modules": ["input_layernorm"]},
    ),
    "saved": (tiny_llama, {"target_modules": ["norm"], "modules_to_save": ["lm_head"]}),
}


def findings_of(saved: Saved, base: Any, tensors: Any = None) -> list[str]:
    """Codes of the errors in PEFT's file, or with these tensors instead of its own."""
    header = (tensors_of(tensors) if tensors else saved.tensors()).header
    facts = AdapterFacts("it", None, saved.config, header)
    found, _ = check_adapter(facts, None, layout=layout_of_model(base))
    return [finding.code for finding in found if finding.severity.value == "error"]


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_match_peft_and_the_base_is_unchanged(option: str, tmp_path: Path) -> None:
    make, config = OPTIONS[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", kind=LNTuningConfig, **config)
    assert differs(saved.answer, alone), "the adapter must matter"
    assert findings_of(saved, base) == []
    model = adapted(base, saved)
    assert model.adapters["it"].methods == ("LN_TUNING",)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert model.findings == ()
    assert same_traces(traces(model.detach()), before)


def test_live_names_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=LNTuningConfig,
        target_modules=["norm"],
        modules_to_save=["lm_head"],
    )
    oracle = peft_loads(base, saved.folder).state_dict()
    theirs = {n: v for n, v in oracle.items() if "ln_tuning" in n or "modules_to_save" in n}
    ours = adapted(base, saved).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_replaced_norms_cannot_be_summed(tmp_path: Path) -> None:
    base = tiny_llama()
    settings = {"kind": LNTuningConfig, "target_modules": ["norm"]}
    one = peft_saves(base, tmp_path / "one", **settings)
    two = peft_saves(base, tmp_path / "two", seed=2, **settings)
    rows = peft_saves(base, tmp_path / "rows", kind=TrainableTokensConfig, token_indices=[5])
    model = AdaptedModel(base)
    for name, saved in (("one", one), ("two", two), ("rows", rows)):
        attach(model, saved, name)
    for selection in (["one", "two"], {"one": 0.5}):
        with pytest.raises(RoutingError) as caught:
            model.set_adapter(selection)
        assert {f.code for f in caught.value.findings} == {"AD720"} or "whole" in str(caught.value)
    model.set_adapter(["one", "rows"])
    assert torch.isfinite(logits(model)).all()


def test_bfloat16_base_matches_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=LNTuningConfig, target_modules=r".*norm")
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, saved.folder), inputs_of(base))
    answer = logits(adapted(half, saved))
    assert answer.dtype is torch.bfloat16
    assert close(answer, oracle, 4)


def test_norm_of_wrong_size_or_with_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    base = tiny_bert()
    saved = peft_saves(base, tmp_path / "it", kind=LNTuningConfig, target_modules=["LayerNorm"])
    tensors = load_file(saved.file)
    key = next(k for k in tensors if k.endswith("embeddings.LayerNorm.ln_tuning_layers.bias"))
    short = {**tensors, key: tensors[key][:8].clone()}
    half = {k: v for k, v in tensors.items() if k != key}
    whole = {k: v for k, v in tensors.items() if "embeddings.LayerNorm" not in k}
    assert findings_of(saved, base, short) == findings_of(saved, base, half) == ["AD349"]
    assert findings_of(saved, base, whole) == ["AD333"]
    for wrong in (short, half):
        with pytest.raises(AttachError):
            attach_adapter(AdaptedModel(base), "it", saved.plan(base), tensors_of(wrong))


def test_every_field_of_pefts_configs_is_known() -> None:
    from adapterdock.registry.methods.table import METHODS

    common = {"peft_type", "peft_version", "base_model_name_or_path", "revision"}
    for kind in (LNTuningConfig, TrainableTokensConfig):
        ours = {option.name for option in METHODS[kind().peft_type.value].options}
        assert {field.name for field in dataclasses.fields(kind)} <= ours | common
