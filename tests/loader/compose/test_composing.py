"""Compositions on a running model: named, active, reweighed, rebuilt, deleted; all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.model.adapter_set import AdapterSet
from adapterdock.manifests.findings.errors import AttachError, PolicyError, RoutingError
from adapterdock.manifests.language.rules import check_active
from adapterdock.manifests.language.schema import Rules
from support.combinations import PEFTS, options_of, products, with_adapters
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    logits,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    root = tmp_path_factory.mktemp("saved")
    every = {"target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    return {
        "one": peft_saves(tiny_llama(), root / "one", seed=1, **every),
        "two": peft_saves(tiny_llama(), root / "two", seed=2, target_modules=["v_proj", "up_proj"]),
        "three": peft_saves(tiny_llama(), root / "three", seed=3, r=2, target_modules=["q_proj"]),
    }


@pytest.fixture
def model(saved: dict[str, Saved]) -> AdaptedModel:
    return with_adapters(tiny_llama(), **saved)


def bound(model: AdaptedModel, **rules: Any) -> None:
    """Bind the model as a manifest's rules do."""
    checked = Rules.model_validate(rules)
    model.rules = lambda active: check_active(
        checked, active, {name: model._host.adapters.by_name[name].rank for name in active}
    )


@pytest.mark.parametrize("method", PEFTS)
def test_a_combination_is_used_as_any_adapter(method: str, model: AdaptedModel) -> None:
    of = {"one": 0.7, "two": 0.5}
    model.define_composition("mix", of, combine=method, **options_of(method))
    assert model.compositions["mix"] == of and model.recipes["mix"].combine == method
    assert model.adapters["mix"].methods == ("LORA",)
    answer = logits(model, adapter="mix")
    assert differs(answer, logits(model), 1e-3)
    model.set_adapter("mix")
    assert model.active_adapters() == ["mix"] and torch.equal(logits(model), answer)
    with model.using("one"):
        assert differs(logits(model), answer, 1e-3)
    with model.using({"mix": 0.5, "three": 1.0}):
        assert model.active_weights() == {"mix": 0.5, "three": 1.0}
    model.delete_adapter("mix")
    assert "mix" not in model.compositions and "mix" not in model.adapters
    assert torch.equal(logits(model), logits(model.get_base_model()))


def test_factors_are_in_the_dtype_of_their_modules(saved: dict[str, Saved]) -> None:
    base = tiny_llama().to(torch.bfloat16)
    model = with_adapters(base, one=saved["one"], two=saved["two"])
    model.add_weighted_adapter(["one", "two"], [1.0, 0.5], "mix", "svd")
    assert model.adapters["mix"].dtypes == (torch.bfloat16,)
    assert not model.adapters["mix"].trainable
    assert not any(
        p.requires_grad for p in model._host.adapters.by_name["mix"].resident.parameters.values()
    )


def test_a_random_method_is_the_same_in_any_order_and_on_any_thread(
    saved: dict[str, Saved],
) -> None:
    found: list[dict[str, torch.Tensor]] = []

    def make(names: list[str]) -> None:
        model = with_adapters(tiny_llama(), **{name: saved[name] for name in names})
        weights = {"one": 0.7, "two": 0.5}
        of = {name: weights[name] for name in names}
        model.define_composition("mix", of, combine="dare_linear_svd", density=0.5, seed=7)
        found.append(products(model, "mix"))

    make(["one", "two"])
    torch.rand(17)
    thread = threading.Thread(target=make, args=(["two", "one"],))
    thread.start()
    thread.join()
    assert found[0].keys() == found[1].keys()
    assert all(close(found[0][module], found[1][module]) for module in found[0])


def test_another_seed_gives_another_combination(model: AdaptedModel) -> None:
    for seed in (7, 8):
        of = {"one": 0.7, "two": 0.5}
        model.define_composition(f"s{seed}", of, combine="dare_ties", density=0.5, seed=seed)
    assert differs(logits(model, adapter="s7"), logits(model, adapter="s8"), 1e-3)


def test_weights_change_live(model: AdaptedModel) -> None:
    of = {"one": 1.0, "two": 0.4}
    for method in ("sum", "linear", "svd"):
        model.define_composition(method, of, combine=method)
        model.set_adapter(method)
        before = logits(model)
        model.set_adapter_weights(method, {"two": -0.2})
        assert model.compositions[method] == {"one": 1.0, "two": -0.2}
        model.define_composition(f"{method}-new", {"one": 1.0, "two": -0.2}, combine=method)
        wanted = logits(model, adapter=f"{method}-new")
        assert torch.equal(logits(model), wanted) and differs(wanted, before, 1e-3)
        assert torch.equal(logits(model, adapter=method), wanted)
    model.set_adapter(["sum", "three"])
    model.set_adapter_weights("sum", {"one": 0.25})
    assert model.active_weights() == {"one": 0.25, "two": -0.2, "three": 1.0}


def test_a_using_of_a_combination_continues_with_the_new_weights(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="cat")
    with model.using("mix"):
        before = logits(model)
        model.set_adapter_weights("mix", {"two": -0.4})
        model.set_adapter_weights("mix", {"one": 0.5})
        assert differs(logits(model), before, 1e-3)
        assert torch.equal(logits(model), logits(model, adapter="mix"))


def test_weights_change_while_other_threads_answer(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.5}, combine="cat")
    possible = [logits(model, adapter={"one": w, "two": 0.5}) for w in (0.5, 1.0)]
    odd: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = logits(model, adapter="mix")
                if not any(close(answer, one) for one in possible):
                    odd.append("a mixture of weights")
            except Exception as error:
                odd.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        model.set_adapter_weights("mix", {"one": (0.5, 1.0)[turn % 2]})
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []


def test_invalid_weights_leave_the_old_ones(model: AdaptedModel) -> None:
    for method in ("sum", "cat"):
        model.define_composition(method, {"one": 1.0, "two": 0.4}, combine=method)
        model.set_adapter(method)
        answer = logits(model)
        for wrong in [{"three": 1.0}, {"two": float("nan")}, {"one": 0, "two": 0}, {"two": "1"}]:
            with pytest.raises(RoutingError):
                model.set_adapter_weights(method, wrong)  # type: ignore[arg-type]
        assert model.compositions[method] == {"one": 1.0, "two": 0.4}
        assert torch.equal(logits(model), answer)
    with pytest.raises(RoutingError, match="not a composition"):
        model.set_adapter_weights("one", {"one": 1.0})


def test_rules_see_the_members(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="svd")
    bound(model, exclusive=[["one", "three"]])
    model.set_adapter("mix")
    with pytest.raises(PolicyError, match="'one' and 'three'"):
        model.set_adapter(["mix", "three"])
    assert model.active_adapters() == ["mix"]
    with pytest.raises(PolicyError):
        bound(model, max_active=1)
    with pytest.raises(PolicyError, match="total rank of 8"):
        bound(model, max_total_rank=7)
    bound(model, requires={"two": ["one"]})
    assert model.active_adapters() == ["mix"]


def test_members_stay_as_long_as_a_combination_is_made_of_them(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="svd")
    with pytest.raises(RoutingError, match="'mix' uses 'one'"):
        model.delete_adapter("one")
    model.delete_composition("mix")
    model.delete_adapter("one")
    assert list(model._host.adapters.by_name) == ["two", "three"]


def test_combinations_are_made_again_when_a_member_has_other_values(model: AdaptedModel) -> None:
    model.define_composition("inner", {"one": 1.0, "two": 0.4}, combine="cat")
    model.define_composition("outer", {"inner": 0.5, "three": 1.0}, combine="svd", svd_rank=10)
    model.define_composition("apart", {"three": 1.0}, combine="cat")
    model.set_adapter("outer")
    apart = model._host.adapters.by_name["apart"]
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["two"].resident.parameters.values():
            parameter.mul_(2)
    assert model.refresh_compositions(["two"]) == ["inner", "outer"]
    wanted = logits(model, adapter={"one": 0.5, "two": 0.2, "three": 1.0})
    assert close(logits(model), wanted, 512)
    assert model._host.adapters.by_name["apart"] is apart


def test_a_failure_leaves_the_model_as_it_was(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="cat")
    model.set_adapter("mix")
    base = model.get_base_model()
    before, answer, state = traces(base), logits(model), dict(model.state_dict())
    names = list(model._host.adapters.by_name)
    from adapterdock.loader.sites.sites import OutputSite

    real = OutputSite.install
    calls: list[int] = []

    def breaks(self: OutputSite) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("the disk is full")
        real(self)

    monkeypatch.setattr(OutputSite, "install", breaks)
    for attempt in (
        lambda: model.define_composition("more", {"one": 1.0}, combine="svd"),
        lambda: model.set_adapter_weights("mix", {"one": 0.3}),
    ):
        calls.clear()
        with pytest.raises(AttachError, match="the disk is full"):
            attempt()
    monkeypatch.undo()
    assert list(model._host.adapters.by_name) == names and model.compositions["mix"] == {
        "one": 1.0,
        "two": 0.4,
    }
    assert same_traces(traces(base), before) and torch.equal(logits(model), answer)
    assert model.state_dict().keys() == state.keys()


def test_a_replacement_that_fails_at_its_end_restores_the_old_one(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="cat")
    old, answer = model._host.adapters.by_name["mix"], logits(model, adapter="mix")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr(AdapterSet, "_follow", None)  # the last that is done
        with pytest.raises(AttachError):
            model.set_adapter_weights("mix", {"one": 0.3})
    assert model._host.adapters.by_name["mix"] is old
    assert torch.equal(logits(model, adapter="mix"), answer)
    now = model.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[k], state[k]) for k in state)


def test_nothing_is_left_when_the_model_is_detached(saved: dict[str, Saved]) -> None:
    base = tiny_llama()
    before = traces(base)
    model = with_adapters(base, **saved)
    model.define_composition("mix", {"one": 1.0, "two": 0.4}, combine="ties_svd", density=0.5)
    model.set_adapter("mix")
    logits(model)
    model.detach()
    assert same_traces(traces(base), before)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"combination_type": "tise", "density": 0.5}, "AD125", "combine"),
    ({"combination_type": "ties"}, "AD175", "density"),
    ({"combination_type": "dare_ties", "density": 0.5}, "AD175", "seed"),
    ({"combination_type": "linear", "density": 0.5}, "AD174", "density"),
    ({"combination_type": "linear", "svd_rank": 4}, "AD174", "svd_rank"),
    ({"combination_type": "cat", "svd_clamp": 0.9}, "AD174", "svd_clamp"),
    ({"combination_type": "svd", "seed": 1}, "AD174", "seed"),
    ({"combination_type": "svd", "svd_rank": 0}, "AD125", "svd_rank"),
    ({"combination_type": "svd", "svd_clamp": 1.5}, "AD125", "svd_clamp"),
    ({"combination_type": "ties", "density": 0}, "AD125", "density"),
    (
        {"combination_type": "ties", "density": 0.5, "majority_sign_method": "most"},
        "AD125",
        "majority_sign_method",
    ),
]


@pytest.mark.parametrize(("options", "code", "named"), WRONG)
def test_options_that_cannot_be_combined_are_refused(
    options: dict[str, Any], code: str, named: str, model: AdaptedModel
) -> None:
    with pytest.raises(RoutingError, match=named) as caught:
        model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "mix", **options)
    assert caught.value.code == code
    assert "mix" not in model._host.adapters.by_name


def test_names_and_weights_must_pair(model: AdaptedModel) -> None:
    for names, weights in [(["one", "two"], [1.0]), (["one", "one"], [1.0, 1.0]), ([], [])]:
        with pytest.raises(RoutingError):
            model.add_weighted_adapter(names, weights, "mix")
    with pytest.raises(RoutingError, match="nobody"):
        model.add_weighted_adapter(["nobody"], [1.0], "mix")
    with pytest.raises(RoutingError, match="taken"):
        model.add_weighted_adapter(["one"], [1.0], "two")
    with pytest.raises(RoutingError, match="empty"):
        model.add_weighted_adapter(["one", "two"], [0.0, 0.0], "mix")
    assert list(model._host.adapters.by_name) == ["one", "two", "three"]


WRONG_CALLS: list[tuple[Callable[[AdaptedModel], Any], str, str]] = [
    (lambda m: m.set_adapter_weights("mix", [1, 2]), "AD731", "Pass {adapter: weight}."),
    (lambda m: m.set_adapter_weights("mix", {"one": "high"}), "AD731", "Pass a finite number."),
    (lambda m: m.set_adapter_weights("mix", {"onee": 1}), "AD730", "Did you mean 'one'?"),
    (lambda m: m.set_adapter_weights("mix", {"x": 1}), "AD730", "composition's members"),
    (lambda m: m.set_adapter_weights("two", {"two": 1}), "AD730", "select {name: weight}"),
    (lambda m: m.define_composition("new", ["one"]), "AD731", "Pass {adapter: weight}."),
    (lambda m: m.define_composition("mix", {"one": 1}), "AD720", "delete_composition"),
    (lambda m: m.define_composition("one", {"two": 1}), "AD720", "hotswap=True"),
    (lambda m: m.save_composition("folder", "one"), "AD730", "save_adapter(folder, name)"),
    (lambda m: m.save_composition("mix", "./folder"), "AD730", "model.compositions"),
    (lambda m: m.delete_composition("one"), "AD730", "delete_adapter(name)"),
]


@pytest.mark.parametrize(("call", "code", "hint"), WRONG_CALLS)
def test_a_wrong_call_says_what_to_write_instead(
    call: Callable[[AdaptedModel], Any], code: str, hint: str, model: AdaptedModel
) -> None:
    model.define_composition("mix", {"one": 0.7, "two": 0.5})
    with pytest.raises(RoutingError) as caught:
        call(model)
    assert caught.value.code == code and hint in str(caught.value.findings[0].hint)
    assert dict(model.compositions) == {"mix": {"one": 0.7, "two": 0.5}}


def test_an_adapter_in_use_is_one_finding_that_names_every_composition(
    model: AdaptedModel,
) -> None:
    model.define_composition("mix", {"one": 0.7, "two": 0.5})
    with pytest.raises(RoutingError, match="The composition 'mix' uses 'one'"):
        model.delete_adapter("one")
    model.define_composition("other", {"one": 1.0}, combine="cat")
    with pytest.raises(RoutingError) as caught:
        model.delete_adapter("one")
    (finding,) = caught.value.findings
    assert finding.message == "The compositions 'mix', 'other' use 'one'"
    for name in ("mix", "other"):
        model.delete_composition(name)
    model.delete_adapter("one")
