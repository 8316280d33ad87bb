"""VeRA: PEFT's logits, with the shared matrices in the file or generated again from their seed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import AdapterFacts
from peft import VeraConfig
from safetensors.torch import load_file
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    by_peft_name,
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
    "sizes": (tiny_llama, {"target_modules": ["q_proj", "v_proj", "down_proj", "up_proj"]}),
    "all-linear": (tiny_llama, {"target_modules": "all-linear"}),
    "conv1d": (tiny_gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "biases": (tiny_bert, {"target_modules": ["query"], "bias": "vera_only"}),
    "all biases": (tiny_bert, {"target_modules": ["query"], "bias": "all"}),
    "saved": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "d_initial": (tiny_llama, {"target_modules": ["q_proj"], "d_initial": 0.7}),
}


def findings_of(saved: Saved, base: Any, **changes: Any) -> list[Finding]:
    """Findings on PEFT's file, with some fields of its config changed."""
    config = {**saved.config, **changes}
    facts = AdapterFacts("it", None, config, saved.tensors().header)
    found, _ = check_adapter(facts, None, layout=layout_of_model(base))
    return [finding for finding in found if finding.severity.value == "error"]


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_logits_match_peft_and_the_base_is_unchanged(
    option: str, save: bool, tmp_path: Path
) -> None:
    make, config = OPTIONS[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=VeraConfig,
        r=4,
        save_projection=save,
        projection_prng_key=11,
        **config,
    )
    assert ("base_model.vera_A" in load_file(saved.file)) is save
    assert differs(saved.answer, alone), "the adapter must matter"
    assert findings_of(saved, base) == []
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert model.findings == ()
    assert same_traces(traces(model.detach()), before)


@pytest.mark.parametrize("save", [True, False])
def test_live_names_match_peft_and_matrices_are_stored_once(save: bool, tmp_path: Path) -> None:
    base = tiny_llama()
    targets = ["q_proj", "down_proj"]
    saved = peft_saves(
        base, tmp_path / "it", kind=VeraConfig, r=4, save_projection=save, target_modules=targets
    )
    theirs = peft_loads(base, saved.folder)
    named = {n: v for n, v in theirs.state_dict().items() if "vera_lambda" in n}
    named |= {
        f"base_model.vera_{x}.it": getattr(theirs.base_model, f"vera_{x}")["it"] for x in "AB"
    }
    ours = adapted(base, saved, trainable=True)
    assert ours.state_dict().keys() == named.keys()
    assert all(torch.equal(v, named[n]) for n, v in ours.state_dict().items())
    trained = {n for n, p in by_peft_name(ours).items() if p.requires_grad}
    assert trained == {n for n in named if "vera_lambda" in n}


def test_sum_with_a_lora_matches_the_sum_of_dense_deltas(tmp_path: Path) -> None:
    base = tiny_llama()
    one = peft_saves(base, tmp_path / "one", kind=VeraConfig, r=4, target_modules=["up_proj"])
    two = peft_saves(base, tmp_path / "two", target_modules=["up_proj"], r=2)
    expected = copy.deepcopy(base)
    vera, lora = load_file(one.file), load_file(two.file)
    for layer in range(2):
        at = f"base_model.model.model.layers.{layer}.mlp.up_proj"
        b, d = vera[f"{at}.vera_lambda_b"], vera[f"{at}.vera_lambda_d"]
        delta = b[:, None] * (vera["base_model.vera_B"] @ (d[:, None] * vera["base_model.vera_A"]))
        other = lora[f"{at}.lora_B.weight"] @ lora[f"{at}.lora_A.weight"] * 4
        expected.model.layers[layer].mlp.up_proj.weight.data += 0.5 * delta + other
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    model.set_adapter({"one": 0.5, "two": 1.0})
    assert close(logits(model), logits(expected))


def test_bfloat16_base_matches_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=VeraConfig, r=4, target_modules=["q_proj"])
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, saved.folder), inputs_of(base))
    for dtype in (None, torch.float32):
        model = adapted(half, saved, dtype=dtype)
        answer = logits(model)
        assert answer.dtype is torch.bfloat16
        assert close(answer, oracle, 8)
        model.detach()


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=VeraConfig, r=4, target_modules=["q_proj"])
    assert [f.code for f in findings_of(saved, base, r=8)] == ["AD343"] * 3
    assert {f.code for f in findings_of(saved, tiny_llama(hidden_size=32))} == {"AD343"}
    assert [f.code for f in findings_of(saved, base, bias="lora_only")] == ["AD313"]
    alone = peft_saves(
        base, tmp_path / "b", kind=VeraConfig, r=4, target_modules=["q_proj"], save_projection=False
    )
    (finding,) = findings_of(alone, base, save_projection=True)
    assert finding.code == "AD331" and "vera_A" in finding.message
    tensors = load_file(saved.file)
    del tensors["base_model.vera_B"]
    facts = AdapterFacts("it", None, saved.config, tensors_of(tensors).header)
    found, _ = check_adapter(facts, None, layout=layout_of_model(base))
    assert "AD331" in {f.code for f in found}


def test_every_field_of_pefts_config_is_known() -> None:
    import dataclasses

    from adapterdock.registry.methods.vera import OPTIONS as KNOWN

    ours = {option.name for option in KNOWN}
    common = {"peft_type", "peft_version", "base_model_name_or_path", "revision"}
    assert {field.name for field in dataclasses.fields(VeraConfig)} <= ours | common
