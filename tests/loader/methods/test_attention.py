"""LoRA on ``nn.MultiheadAttention``: both weights are changed during a call, as in PEFT."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter.warning import AdapterWarning
from adapterdock.manifests.findings.errors import AdapterdockError, RoutingError
from support.method_fit import codes, facts_of, retensored, tampered
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    traces,
)
from support.small_nets import Attention
from torch import nn


def saved_at(folder: Path, base: nn.Module, *targets: str, **more: Any) -> Saved:
    return peft_saves(base, folder, target_modules=list(targets), **more)


@pytest.fixture
def base() -> Attention:
    return Attention().eval()


@pytest.mark.parametrize(
    "config",
    [{}, {"rank_pattern": {"mix": 3}, "alpha_pattern": {"mix": 5}}, {"target_modules": ["mix"]}],
)
def test_logits_match_peft_and_the_base_is_unchanged(
    config: dict[str, Any], base: Attention, tmp_path: Path
) -> None:
    before, alone = traces(base), logits(base)
    saved = peft_saves(base, tmp_path / "it", **{"target_modules": ["wide", "mix"], **config})
    assert codes(facts_of(saved.folder), base) == []
    model = adapted(base, saved)
    assert differs(saved.answer, alone, 1e-2)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert model.findings == ()
    assert same_traces(traces(model.detach()), before)


def test_sum_of_two_adapters_matches_their_merge(base: Attention, tmp_path: Path) -> None:
    model = adapted(base, saved_at(tmp_path / "one", base, "mix"), "one")
    attach(model, saved_at(tmp_path / "two", base, "mix", seed=9), "two")
    before = traces(base)
    live = logits(model, adapter={"one": 0.5, "two": -1.5})
    model.merge_adapter({"one": 0.5, "two": -1.5})
    assert close(logits(base), live)
    model.unmerge_adapter()
    assert same_traces(traces(base), before)
    theirs = peft_loads(base, tmp_path / "one", tmp_path / "two")
    theirs.base_model.set_adapter(["one", "two"])
    assert close(logits(model, adapter=["one", "two"]), logits(theirs, {"x": base.example}))


def test_attention_adapter_is_trained_and_saved_for_peft(base: Attention, tmp_path: Path) -> None:
    model = AdaptedModel(base)
    saved = saved_at(tmp_path / "it", base, "mix")
    model.load_adapter(saved.folder, "it", trainable=True)
    model.set_adapter("it")
    model(base.example).square().sum().backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(grads) == 4 and all(g is not None and bool(g.any()) for g in grads)
    model.save_adapter(tmp_path / "again", "it")
    again = logits(peft_loads(base, tmp_path / "again"), {"x": base.example})
    assert close(again, saved.answer)


def test_rows_of_a_batch_are_refused_as_in_peft(base: Attention, tmp_path: Path) -> None:
    model = adapted(base, saved_at(tmp_path / "it", base, "mix"))
    names = ["it", "__base__"] * (len(base.example) // 2)
    with pytest.raises(RoutingError, match="AD771"):
        model(base.example, adapter_names=names)


def test_incomplete_or_unselected_tensors_are_refused(base: Attention, tmp_path: Path) -> None:
    facts = facts_of(saved_at(tmp_path / "it", base, "wide", "mix").folder)
    inside = "mix.base_layer.out_proj."
    halved = retensored(facts, {f"{inside}lora_A.weight": None, f"{inside}lora_B.weight": None})
    assert set(codes(halved, base)) & {"AD340", "AD341", "AD342", "AD344"}
    assert codes(tampered(facts, target_modules=["wide"]), base)
    assert codes(retensored(facts, {"mix.lora_B.weight": (8, 4)}), base) == ["AD343"]
    plain = facts_of(saved_at(tmp_path / "plain", base, "wide").folder)
    assert codes(tampered(plain, target_modules=["wide", "mix"]), base) == ["AD333"]


def test_new_adapter_on_attention_is_refused_by_name(base: Attention) -> None:
    model = AdaptedModel(base)
    for targets in (["mix"], ["wide", "mix"], ".*mix"):
        config = {"peft_type": "LORA", "r": 2, "target_modules": targets}
        with pytest.raises(AdapterdockError, match=r"mix is an nn\.MultiheadAttention"):
            model.add_adapter("new", config)
    model.add_adapter("new", {"peft_type": "LORA", "r": 2, "target_modules": ["wide"]})


def test_torch_layer_that_reads_the_weights_itself_is_reported(tmp_path: Path) -> None:
    """Its fast path never calls the attention: there PEFT's adapter silently does nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.example = torch.randn(2, 5, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    base = Net().eval()
    saved = saved_at(tmp_path / "it", base, "self_attn")
    model = adapted(base, saved)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = logits(model)
    never_ran = any("AD716" in str(w.message) for w in caught if w.category is AdapterWarning)
    assert never_ran or differs(answer, logits(base), 1e-8)
    with_gradients = model(base.example)
    assert differs(with_gradients, base(base.example))
