"""``copy.deepcopy`` of a model: another base with other adapters, in the same state."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, PolicyError, RoutingError
from adapterdock.manifests.findings.rules import REQUIRED
from adapterdock.registry.store.store import Store
from support.near import close, differs
from support.new_adapters import METHODS, batch_of, new_adapter, steps, tied_llama
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
    logits,
    peft_saves,
    randomise,
    same_traces,
    tiny_llama,
    traces,
)
from support.peft_methods import CASES as PEFT_METHODS
from support.shelf import Shelf, manifest_of, shelf_model
from torch import nn


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Saved, Saved]:
    folder = tmp_path_factory.mktemp("two")
    kept = {"target_modules": ["q_proj", "v_proj"]}
    return (
        peft_saves(tiny_llama(), folder / "one", **kept),
        peft_saves(tiny_llama(), folder / "two", seed=9, modules_to_save=["lm_head"], **kept),
    )


def both(two: tuple[Saved, Saved], base: Any = None) -> AdaptedModel:
    model = adapted(base or tiny_llama(), two[0], "one")
    attach(model, two[1], "two")
    return model


def memory(model: nn.Module) -> set[int]:
    """The places of its values."""
    return {t.data_ptr() for t in (*model.parameters(), *model.buffers()) if t.numel()}


@pytest.mark.parametrize("case", METHODS)
def test_training_a_copy_leaves_the_original(case: str) -> None:
    make, fields = METHODS[case]
    model = new_adapter(make(), fields)
    randomise(model)
    model.eval()
    answer = logits(model)
    other = copy.deepcopy(model)
    assert type(other) is type(model) and other.active_weights() == model.active_weights()
    assert torch.equal(logits(other), answer)
    assert not memory(model) & memory(other)
    named = [(name, p.requires_grad) for name, p in model.named_parameters()]
    assert [(name, p.requires_grad) for name, p in other.named_parameters()] == named
    steps(other, other.base_model, count=1, rate=1.0)
    assert torch.equal(logits(model), answer)
    assert differs(logits(other), answer, 1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_adapters_that_run_through_peft_are_copied(tmp_path: Path) -> None:
    from peft import BOFTConfig

    make, fields = PEFT_METHODS["BOFT"]
    saved = peft_saves(make(), tmp_path / "it", kind=BOFTConfig, **fields)
    model = AdaptedModel(make())
    model.load_adapter(saved.folder, "it", trainable=True)
    model.set_adapter("it")
    other = copy.deepcopy(model)
    assert close(logits(other), saved.answer)
    assert not memory(model) & memory(other)
    randomise(other)
    assert close(logits(model), saved.answer)
    assert differs(logits(other), saved.answer)


def test_a_copy_goes_on_by_itself(two: tuple[Saved, Saved]) -> None:
    model = both(two)
    model.define_composition("sum", {"one": 0.5})
    model.set_adapter("sum")
    answer = logits(model)
    other = copy.deepcopy(model)
    assert other.compositions == model.compositions
    other.delete_composition("sum")
    other.delete_adapter("one")
    other.set_adapter("two")
    attach(other, two[0], "three")
    assert close(logits(other, adapter="two"), two[1].answer)
    assert close(logits(other), two[0].answer)
    assert list(other.adapters) == ["two", "three"]
    assert list(model.adapters) == ["one", "two"]
    assert model.active_weights() == {"one": 0.5}
    assert torch.equal(logits(model), answer)
    rows = ["one", "two"]
    assert close(logits(model, adapter_names=rows)[1], two[1].answer[1])
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert close(logits(other), two[0].answer)


def test_a_base_that_leads_back_to_the_wrapper_is_copied(two: tuple[Saved, Saved]) -> None:
    """A trainer whose method is a hook has the wrapper, and the base has the hook."""

    class Trainer:
        def __init__(self, model: AdaptedModel) -> None:
            self.model, self.calls = model, 0

        def hook(self, *_: Any) -> None:
            self.calls += 1

    model = both(two)
    trainer = Trainer(model)
    base: Any = model.base_model
    base.model.layers[0].register_forward_hook(trainer.hook)
    base.wrapper = model
    answer, calls = logits(model), trainer.calls
    other = copy.deepcopy(model)
    copied: Any = other.base_model
    assert copied.wrapper is other
    assert torch.equal(logits(other), answer) and trainer.calls == calls
    (hook,) = copied.model.layers[0]._forward_hooks.values()
    assert hook.__self__.model is other and hook.__self__.calls > calls
    assert not memory(model) & memory(other)


def test_a_detached_copy_is_a_plain_base(two: tuple[Saved, Saved]) -> None:
    base = tiny_llama()
    plain, before = logits(base), traces(base)
    model = both(two, base)
    model.add_adapter("new", {"peft_type": "LORA", "target_modules": ["q_proj"]})
    other = copy.deepcopy(model)
    alone = other.detach()
    assert torch.equal(logits(alone), plain)
    assert all(p.requires_grad for p in alone.parameters())
    assert not any(m._forward_hooks or "forward" in vars(m) for m in alone.modules())
    assert not any(p.requires_grad for p in base.parameters())
    assert close(logits(model, adapter="two"), two[1].answer)
    model.detach()
    assert same_traces(before, traces(base))


@pytest.mark.parametrize("tied", [False, True])
def test_merged_adapters_stay_merged_in_the_copy_and_come_out_of_each_alone(
    tied: bool, tmp_path: Path
) -> None:
    base = tied_llama() if tied else tiny_llama()
    targets = ["embed_tokens"] if tied else ["q_proj"]
    saved = peft_saves(base, tmp_path / "it", target_modules=targets)
    values = {name: p.detach().clone() for name, p in base.named_parameters()}
    model = adapted(base, saved)
    model.merge_adapter("it")
    other = copy.deepcopy(model)
    assert other.merged_adapters == ["it"]
    assert torch.equal(logits(other), logits(model))
    assert not memory(model) & memory(other)
    other.unmerge_adapter()
    assert (other.merged_adapters, model.merged_adapters) == ([], ["it"])
    assert other.config.tie_word_embeddings is tied
    assert all(torch.equal(values[n], p) for n, p in other.base_model.named_parameters())
    assert model.config.tie_word_embeddings is False
    with torch.no_grad():
        for parameter in other.base_model.parameters():
            parameter.zero_()
    model.unmerge_adapter()
    assert all(torch.equal(values[n], p) for n, p in base.named_parameters())
    assert close(logits(model), saved.answer)
    assert other.active_adapters() == ["it"]


def test_a_copy_of_a_merge_that_is_read_again_does_not_keep_the_original(
    shelf: Shelf, tmp_path: Path
) -> None:
    saved = peft_saves(shelf_model(), tmp_path / "it", target_modules=["q_proj"])
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters={"it": {"source": saved}}))
    plain = logits(model, adapter=None)
    model.merge_adapter("it", keep="reread")
    other = copy.deepcopy(model)
    alive = weakref.ref(model.base_model)
    del model
    gc.collect()
    assert alive() is None
    other.unmerge_adapter()
    assert torch.equal(logits(other, adapter=None), plain)


def test_a_copy_reads_lazy_adapters_and_keeps_the_budget(
    shelf: Shelf, two: tuple[Saved, Saved], tmp_path: Path
) -> None:
    kept = {"target_modules": ["q_proj", "v_proj"]}
    saved = {
        name: peft_saves(shelf_model(), tmp_path / name, seed=n, **kept)
        for n, name in enumerate(("a", "b"))
    }
    entries = {name: {"source": one, "lazy": True} for name, one in saved.items()}
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=entries))
    logits(model, adapter="a")
    size = model.adapters["a"].nbytes
    model.residency = size
    other = copy.deepcopy(model)
    del model
    gc.collect()
    assert other.residency == size
    assert [info.loaded for info in other.adapters.values()] == [True, False]
    for name in ("b", "a"):
        assert close(logits(other, adapter=name), saved[name].answer)
        assert [n for n, info in other.adapters.items() if info.loaded] == [name]
    assert other.deployment is not None
    files = other.deployment.pulled.adapters["a"].values()
    store = Store.default()
    assert {file.fact.sha256 for file in files} <= store.held()  # they may be read again
    del other
    gc.collect()
    assert not store.held()


def test_rules_hold_in_the_copy(two: tuple[Saved, Saved]) -> None:
    model = both(two)
    model.rules = lambda weights: [REQUIRED.finding("no one")] if "one" in weights else []
    other = copy.deepcopy(model)
    with pytest.raises(PolicyError, match="no one"):
        other.set_adapter("one")
    other.set_adapter("two")


def test_a_block_of_using_counts_for_the_original_only(two: tuple[Saved, Saved]) -> None:
    model = both(two)
    with model.using("one"):
        other = copy.deepcopy(model)
        assert model.active_adapters() == ["one"]
        assert other.active_adapters() == ["two"]


def test_a_compiled_model_gives_a_compiled_copy(two: tuple[Saved, Saved]) -> None:
    model = adapted(tiny_llama(), two[0], "one")
    model.compile(backend="eager")
    other = copy.deepcopy(model)
    assert other._host.state.compiled is not None
    assert close(logits(other), two[0].answer)
    assert close(logits(other, adapter=None), logits(tiny_llama()))
    assert close(logits(model), two[0].answer)


def test_what_the_user_put_on_the_wrapper_is_copied(two: tuple[Saved, Saved]) -> None:
    model = adapted(tiny_llama(), two[0], "one")
    model.head = nn.Linear(3, 2)
    model.notes = {"run": [1]}
    model.train()
    other = copy.deepcopy(model)
    assert other.training and other.base_model.training
    assert torch.equal(other.head.weight, model.head.weight)
    assert other.head is not model.head and other.notes == {"run": [1]}
    assert other.notes is not model.notes
    inside = copy.deepcopy({"policy": model, "again": model})
    assert inside["policy"] is inside["again"]


def test_a_reference_model_is_frozen_and_stays_as_it_was(two: tuple[Saved, Saved]) -> None:
    """As TRL's ``create_reference_model`` makes one: a frozen copy, to measure how far the policy
    has moved."""
    policy = AdaptedModel(tiny_llama())
    policy.load_adapter(two[0].folder, "one", trainable=True)
    policy.set_adapter("one")
    reference = copy.deepcopy(policy)
    for _, parameter in reference.named_parameters():
        parameter.requires_grad = False
    reference.eval()
    before = logits(reference)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        policy(**batch_of(policy)).loss.backward()
        optimizer.step()
    assert torch.equal(logits(reference), before)
    assert differs(logits(policy), before, 1e-4)
    assert reference.generate(ids(), max_new_tokens=2, eos_token_id=None).shape == (2, 9)


def test_gradient_checkpointing_works_in_the_copy(two: tuple[Saved, Saved]) -> None:
    model = AdaptedModel(tiny_llama())
    model.load_adapter(two[0].folder, "one", trainable=True)
    model.set_adapter("one")
    model.gradient_checkpointing_enable()
    model.train()
    model(**batch_of(model)).loss.backward()
    other = copy.deepcopy(model)
    other.zero_grad()
    other(**batch_of(other)).loss.backward()
    found = {name: p.grad for name, p in other.named_parameters() if p.requires_grad}
    assert all(close(found[n], p.grad) for n, p in model.named_parameters() if p.requires_grad)


def test_a_dispatched_base_is_copied_and_an_offloaded_one_is_refused(
    two: tuple[Saved, Saved],
) -> None:
    from accelerate import cpu_offload, dispatch_model

    base = dispatch_model(tiny_llama(), {"": "cpu"}, force_hooks=True)
    model = adapted(base, two[0], "one")
    other = copy.deepcopy(model)
    assert close(logits(other), two[0].answer)
    assert not memory(model) & memory(other)
    away = tiny_llama()
    cpu_offload(away, execution_device=torch.device("cpu"))
    with pytest.raises(AttachError, match="AD738") as caught:
        copy.deepcopy(adapted(away, two[0], "one"))
    assert "offloaded" in str(caught.value)


def test_shallow_copies_pickles_and_detached_models_are_refused(
    two: tuple[Saved, Saved], tmp_path: Path
) -> None:
    model = adapted(tiny_llama(), two[0], "one")
    with pytest.raises(AttachError, match="AD738") as caught:
        copy.copy(model)
    assert "copy.deepcopy" in str(caught.value.findings[0].hint)
    for refuse in (lambda: pickle.dumps(model), lambda: torch.save(model, tmp_path / "x")):
        with pytest.raises(AttachError, match="AD738") as caught:
            refuse()
        assert "save_pretrained" in str(caught.value.findings[0].hint)
    model.detach()
    with pytest.raises(RoutingError, match="AD736"):
        copy.deepcopy(model)
