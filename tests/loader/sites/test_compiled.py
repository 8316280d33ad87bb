"""A compiled base: adapters change without compiling again, and the base is not changed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from support.near import close, differs
from support.peft_adapters import (
    adapted,
    ids,
    logits,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)

SMALL = {"r": 2, "target_modules": ["q_proj", "down_proj"]}
LARGE = {"r": 5, "lora_alpha": 3, "target_modules": ["q_proj"]}


class Counting:
    """A backend that counts graphs and runs them unchanged."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def model(tmp_path: Path) -> AdaptedModel:
    torch._dynamo.reset()
    base = tiny_llama()
    found = adapterdock.attach(base, {"version": 1, "base": {}})
    for seed, (name, config) in enumerate({"small": SMALL, "large": LARGE}.items()):
        found.load_adapter(str(peft_saves(base, tmp_path / name, seed=seed, **config).folder), name)
    found.define_composition("both", {"small": 0.5, "large": -1.0})
    return found


CHOICES: list[Any] = ["small", "large", "both", {"large": 0.3}, None, "small"]


def test_switching_within_the_rank_equals_uncompiled_without_recompiling(
    model: AdaptedModel,
) -> None:
    wanted = [logits(model, adapter=choice) for choice in CHOICES]
    base = logits(model.base_model)
    counting = Counting()
    model.compile(max_rank=8, backend=counting, fullgraph=True)
    for choice, answer in zip(CHOICES, wanted, strict=True):
        assert close(logits(model, adapter=choice), answer)
    assert counting.graphs == 1
    assert torch.equal(logits(model, adapter=None), base)
    assert torch.equal(logits(model.base_model), base)
    assert counting.graphs == 1


def test_a_hot_swap_within_the_rank_does_not_compile_again(
    model: AdaptedModel, tmp_path: Path
) -> None:
    counting = Counting()
    model.compile(max_rank=8, backend=counting, fullgraph=True)
    logits(model, adapter="small")
    other = peft_saves(tiny_llama(), tmp_path / "other", seed=9, r=7, target_modules=["down_proj"])
    model.load_adapter(str(other.folder), "small", hotswap=True)
    assert close(logits(model, adapter="small"), other.answer)
    assert counting.graphs == 1


def test_generate_runs_compiled_and_gives_the_same_tokens(model: AdaptedModel) -> None:
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    wanted = model.generate(input_ids=ids(), adapter="both", **settings)
    counting = Counting()
    model.compile(max_rank=8, backend=counting)
    assert torch.equal(model.generate(input_ids=ids(), adapter="both", **settings), wanted)
    assert counting.graphs > 0


def test_adapters_that_the_graph_cannot_run_are_refused(
    model: AdaptedModel, tmp_path: Path
) -> None:
    model.compile(max_rank=6, backend="eager")
    with pytest.raises(RoutingError, match="rank 7"):
        logits(model, adapter="both")
    logits(model, adapter="large")
    with pytest.raises(RoutingError):
        model(input_ids=ids(), adapter_names=["small", "large"])
    other = peft_saves(tiny_llama(), tmp_path / "other", r=2, target_modules=["o_proj"])
    model.load_adapter(str(other.folder), "other")
    with pytest.raises(RoutingError) as caught:
        logits(model, adapter="other")
    assert caught.value.code == "AD773"


def test_a_model_with_more_than_low_rank_factors_is_not_compiled(tmp_path: Path) -> None:
    base = tiny_llama()
    model = adapterdock.attach(base, {"version": 1, "base": {}})
    with pytest.raises(RoutingError):
        model.compile(max_rank=4)
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    model.load_adapter(str(saved.folder), "it")
    with pytest.raises(RoutingError) as caught:
        model.compile(max_rank=4)
    assert "lm_head" in str(caught.value)
    assert close(logits(model, adapter="it"), saved.answer)


def test_returning_to_a_site_does_not_compile_again(model: AdaptedModel, tmp_path: Path) -> None:
    counting = Counting()
    model.compile(max_rank=8, backend=counting, fullgraph=True)
    logits(model, adapter="small")
    model.delete_composition("both")
    model.delete_adapter("small")  # the only one on down_proj
    assert torch.equal(logits(model, adapter=None), logits(model.base_model))
    again = peft_saves(tiny_llama(), tmp_path / "again", r=2, target_modules=["down_proj"])
    model.load_adapter(str(again.folder), "again")
    assert close(logits(model, adapter="again"), again.answer)
    assert counting.graphs == 1


def test_an_empty_site_is_removed_with_the_graph(model: AdaptedModel, tmp_path: Path) -> None:
    base = model.base_model

    def hooked() -> set[str]:
        return {name.rpartition(".")[2] for name, m in base.named_modules() if m._forward_hooks}

    model.compile(max_rank=8, backend="eager")
    model.delete_composition("both")
    model.delete_adapter("small")
    assert hooked() == {"q_proj", "down_proj"}
    model.compile(max_rank=8, backend="eager")  # for what is attached now
    assert hooked() == {"q_proj"}
    again = peft_saves(tiny_llama(), tmp_path / "again", r=2, target_modules=["down_proj"])
    model.load_adapter(str(again.folder), "again")
    with pytest.raises(RoutingError) as caught:
        logits(model, adapter="again")
    assert caught.value.code == "AD773"
    model.delete_adapter(["again", "large"])
    assert hooked() == {"q_proj"}


@pytest.mark.parametrize("how", ["detached", "forgotten"])
def test_a_compiled_model_leaves_its_base_unchanged(how: str, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", **SMALL)
    before = traces(base)
    model = adapted(base, saved)
    model.compile(max_rank=4, backend="eager")
    logits(model)
    model.set_adapter(None)
    model.delete_adapter("it")
    assert not same_traces(traces(base), before)
    if how == "detached":
        model.detach()
    else:
        del model
        gc.collect()
    assert same_traces(traces(base), before)
    AdaptedModel(base)


def test_changed_values_are_used_by_the_next_call(model: AdaptedModel) -> None:
    model.compile(max_rank=8, backend="eager")
    before = logits(model, adapter="small")
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})
    after = logits(model, adapter="small")
    assert differs(after, before, 1e-4)
    model.compile(max_rank=8, backend="eager")
    assert torch.equal(logits(model, adapter="small"), after)
