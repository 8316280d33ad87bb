"""What the tests of hot swaps in PEFT and transformers prove, proved here:
``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, RoutingError
from peft import IA3Config, LoHaConfig
from safetensors.torch import load_file, save_file
from support.moes import tiny_gpt_oss
from support.near import close, differs
from support.peft_adapters import Saved, logits, peft_saves, tiny_llama
from support.small_nets import Pictures, Steps


def saves(make: Callable[[], Any], folder: Path, seed: int, config: dict[str, Any]) -> Saved:
    return peft_saves(make().eval(), folder, seed=seed, **config)


def loaded(make: Callable[[], Any], saved: Saved) -> AdaptedModel:
    """A fresh model with the adapter ``it``, active."""
    model = AdaptedModel(make().eval())
    model.load_adapter(saved.folder, "it")
    model.set_adapter("it")
    return model


def swap(model: AdaptedModel, saved: Saved) -> None:
    model.load_adapter(saved.folder, "it", hotswap=True)


IA3 = {"kind": IA3Config, "target_modules": ["wide"], "feedforward_modules": []}
EXPERTS = {
    "target_modules": [],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "one layer": (Steps, {"target_modules": ["wide"]}, {"target_modules": ["wide"]}),
    "two layers": (
        Steps,
        {"target_modules": ["wide", "narrow"]},
        {"target_modules": ["wide", "narrow"]},
    ),
    "lower rank, fewer layers": (
        Steps,
        {"target_modules": ["wide", "narrow"], "r": 13, "lora_alpha": 13},
        {"target_modules": ["wide"], "r": 7, "lora_alpha": 7},
    ),
    "higher rank, another alpha": (
        Steps,
        {"target_modules": ["wide", "narrow"], "r": 7, "lora_alpha": 7},
        {"target_modules": ["wide"], "r": 13, "lora_alpha": 3},
    ),
    "other layers": (Steps, {"target_modules": ["wide"]}, {"target_modules": ["narrow"]}),
    "pictures, higher": (
        Pictures,
        {"target_modules": ["first"], "r": 7},
        {"target_modules": ["first"], "r": 13},
    ),
    "pictures, lower": (
        Pictures,
        {"target_modules": ["first"], "r": 13},
        {"target_modules": ["first"], "r": 7},
    ),
    "groups, higher": (
        Pictures,
        {"target_modules": ["second"], "r": 2},
        {"target_modules": ["second"], "r": 4},
    ),
    "groups, lower": (
        Pictures,
        {"target_modules": ["second"], "r": 4},
        {"target_modules": ["second"], "r": 2},
    ),
    "experts": (tiny_gpt_oss, EXPERTS, {**EXPERTS, "r": 2}),
    "a LoRA and an IA3": (Steps, {"target_modules": ["wide"]}, IA3),
    "two IA3": (Steps, IA3, {**IA3, "target_modules": ["narrow"]}),
    "a LoHa and a LoRA": (
        Steps,
        {"kind": LoHaConfig, "target_modules": ["narrow"], "r": 2},
        {"target_modules": ["wide"]},
    ),
    "a causal LM": (
        tiny_llama,
        {"target_modules": ["q_proj", "v_proj"], "r": 8},
        {"target_modules": ["q_proj"], "r": 8, "lora_alpha": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_after_a_hot_swap_the_new_weights_answer_and_swap_back(case: str, tmp_path: Path) -> None:
    make, first, second = CASES[case]
    old = saves(make, tmp_path / "old", 1, first)
    new = saves(make, tmp_path / "new", 2, second)
    assert differs(old.answer, new.answer)
    model = loaded(make, old)
    before = sorted(model.state_dict())
    assert close(logits(model), old.answer)
    swap(model, new)
    assert close(logits(model), new.answer)
    assert model.active_adapters() == ["it"]
    swap(model, old)
    assert close(logits(model), old.answer)
    assert sorted(model.state_dict()) == before
    assert model.findings == ()


@pytest.mark.parametrize("how", ["one too many", "one too few", "no such module"])
def test_a_failed_swap_keeps_the_old_weights(how: str, tmp_path: Path) -> None:
    config = {"target_modules": ["wide"]}
    old = saves(Steps, tmp_path / "old", 1, config)
    new = saves(Steps, tmp_path / "new", 2, config)
    tensors = load_file(new.file)
    if how == "one too many":
        tensors["base_model.model.narrow.lora_A.weight"] = torch.ones(4, 10)
    elif how == "one too few":
        del tensors["base_model.model.wide.lora_A.weight"]
    else:
        tensors["base_model.model.gone.lora_A.weight"] = torch.ones(4, 10)
        tensors["base_model.model.gone.lora_B.weight"] = torch.ones(4, 4)
    save_file(tensors, new.file, metadata={"format": "pt"})
    model = loaded(Steps, old)
    with pytest.raises(AdapterdockError):
        swap(model, new)
    assert close(logits(model), old.answer)
    assert list(model.adapters) == ["it"]


@pytest.mark.parametrize("beside", [True, False], ids=["beside another", "alone"])
def test_a_swap_needs_an_adapter_of_that_name(beside: bool, tmp_path: Path) -> None:
    saved = saves(Steps, tmp_path / "it", 1, {"target_modules": ["wide"]})
    model = loaded(Steps, saved) if beside else AdaptedModel(Steps().eval())
    with pytest.raises(AttachError) as caught:
        model.load_adapter(saved.folder, "other", hotswap=True)
    assert caught.value.code == "AD730"
    assert list(model.adapters) == (["it"] if beside else [])


# -- compiled -------------------------------------------------------------------------------


class Counting:
    """A backend that counts what it compiles and runs it as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


COMPILED = {
    "the same rank": (
        {"target_modules": ["q_proj", "v_proj"], "r": 11},
        {"target_modules": ["q_proj"], "r": 11},
    ),
    "a higher rank": (
        {"target_modules": ["q_proj", "v_proj"], "r": 7, "lora_alpha": 7},
        {"target_modules": ["q_proj"], "r": 13, "lora_alpha": 13},
    ),
    "a lower rank": (
        {"target_modules": ["q_proj", "v_proj"], "r": 13, "lora_alpha": 5},
        {"target_modules": ["q_proj"], "r": 7, "lora_alpha": 7},
    ),
    "ranks by a pattern": (
        {"target_modules": ["q_proj", "v_proj"], "r": 8, "rank_pattern": {"v_proj": 9}},
        {"target_modules": ["q_proj", "v_proj"], "r": 4, "rank_pattern": {"q_proj": 13}},
    ),
}


@pytest.mark.parametrize("case", COMPILED)
def test_swaps_on_a_compiled_model_do_not_compile_again(case: str, tmp_path: Path) -> None:
    first, second = COMPILED[case]
    old = saves(tiny_llama, tmp_path / "old", 1, first)
    new = saves(tiny_llama, tmp_path / "new", 2, second)
    model = loaded(tiny_llama, old)
    ranks = {name: value.shape for name, value in model.state_dict().items()}
    config = json.dumps(old.config)
    counting = Counting()
    model.compile(max_rank=13, backend=counting, fullgraph=True)
    assert close(logits(model), old.answer), "room for more changes nothing"
    assert {name: value.shape for name, value in model.state_dict().items()} == ranks
    assert counting.graphs == 1
    for saved in (new, old, new):
        swap(model, saved)
        assert close(logits(model), saved.answer)
    assert counting.graphs == 1
    assert json.dumps(old.config) == config
    model.compile(max_rank=14, backend=counting, fullgraph=True)
    assert close(logits(model), new.answer)
    assert counting.graphs == 2, "the counting counts"


def test_compiling_for_a_smaller_rank_than_attached_is_refused(tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj", "v_proj"], "r": 8, "rank_pattern": {"v_proj": 10}}
    saved = saves(tiny_llama, tmp_path / "it", 1, config)
    model = loaded(tiny_llama, saved)
    model.compile(max_rank=10, backend="eager")
    assert close(logits(model), saved.answer)
    model.compile(max_rank=9, backend="eager")
    with pytest.raises(RoutingError) as caught:
        logits(model)
    assert caught.value.code == "AD773"


@pytest.mark.parametrize("trainable", [True, False])
def test_compiling_leaves_what_is_trained_as_it_was(trainable: bool, tmp_path: Path) -> None:
    saved = saves(tiny_llama, tmp_path / "it", 1, {"target_modules": ["q_proj"]})
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, "it", trainable=trainable)
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    model.compile(max_rank=9, backend="eager")
    logits(model, adapter="it")
    assert {name: (id(p), p.requires_grad) for name, p in model.named_parameters()} == before
    assert all(flag is trainable for name, (_, flag) in before.items() if "lora_" in name)


@pytest.mark.parametrize("compiler", ["torch.compile", "compile"])
def test_a_model_that_is_already_compiled_is_refused(compiler: str, tmp_path: Path) -> None:
    saved = saves(Steps, tmp_path / "it", 1, {"target_modules": ["wide"]})
    base: Any = Steps().eval()
    if compiler == "torch.compile":
        base = torch.compile(base, backend="eager")
    else:
        base.compile(backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is an error, and no warning
        with pytest.raises(AttachError):
            AdaptedModel(base).load_adapter(saved.folder, "it")


def test_compiling_needs_an_adapter() -> None:
    model = AdaptedModel(Steps().eval())
    with pytest.raises(RoutingError) as caught:
        model.compile(max_rank=8)
    assert caught.value.code == "AD773"


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (Pictures, {"target_modules": ["first"]}),
        (Pictures, {"target_modules": ["second"], "r": 2}),
        (tiny_gpt_oss, EXPERTS),
        (
            lambda: tiny_llama(attention_bias=True),
            {"target_modules": ["q_proj"], "lora_bias": True},
        ),
    ],
    ids=["pictures", "groups", "experts", "lora_bias"],
)
def test_methods_that_cannot_be_compiled_are_refused_and_still_swap(
    make: Callable[[], Any], config: dict[str, Any], tmp_path: Path
) -> None:
    old = saves(make, tmp_path / "old", 1, config)
    new = saves(make, tmp_path / "new", 2, {**config, "r": 4})
    model = loaded(make, old)
    with pytest.raises(RoutingError) as caught:
        model.compile(max_rank=8)
    assert caught.value.code == "AD773"
    swap(model, new)
    assert close(logits(model), new.answer)
