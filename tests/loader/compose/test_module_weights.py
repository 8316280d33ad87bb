"""Weights by module: a sum where an adapter counts more in one part of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from support.combinations import dense_answer, peft_deltas, with_adapters
from support.near import close
from support.peft_adapters import Saved, logits, peft_saves, tiny_llama


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    root: Path = tmp_path_factory.mktemp("saved")
    return {
        "one": peft_saves(tiny_llama(), root / "one", seed=1, target_modules="all-linear"),
        "two": peft_saves(tiny_llama(), root / "two", seed=2, r=2, target_modules=["v_proj"]),
    }


@pytest.fixture
def model(saved: dict[str, Saved]) -> AdaptedModel:
    return with_adapters(tiny_llama(), **saved)


GLOBS = {"*.mlp.*": 0.1, "*.layers.1.*": 0.0, "*": 0.7}


def weight(module: str) -> float:
    if ".mlp." in module:
        return 0.1
    return 0.0 if ".layers.1." in module else 0.7


def test_each_module_has_the_weight_of_the_first_glob_that_matches(
    model: AdaptedModel, saved: dict[str, Saved]
) -> None:
    model.define_composition("mix", {"one": GLOBS, "two": -0.5})
    deltas = {m: weight(m) * d for m, d in peft_deltas(tiny_llama(), saved["one"]).items()}
    for module, delta in peft_deltas(tiny_llama(), saved["two"]).items():
        deltas[module] = deltas[module] - 0.5 * delta
    wanted = dense_answer(tiny_llama(), deltas)
    assert close(logits(model, adapter="mix"), wanted)
    assert close(logits(model, adapter={"one": GLOBS, "two": -0.5}), wanted)
    model.set_adapter("mix")
    assert close(logits(model), wanted)


def test_modules_without_a_matching_glob_are_left_out(
    model: AdaptedModel, saved: dict[str, Saved]
) -> None:
    deltas = peft_deltas(tiny_llama(), saved["one"])
    wanted = dense_answer(tiny_llama(), {m: d for m, d in deltas.items() if ".mlp." in m})
    assert close(logits(model, adapter={"one": {"*.mlp.*": 1.0}}), wanted)


def test_a_sum_within_a_selection_multiplies(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": GLOBS, "two": 0.5})
    half = {glob: value / 2 for glob, value in GLOBS.items()}
    wanted = logits(model, adapter={"one": half, "two": 0.25})
    assert close(logits(model, adapter={"mix": 0.5}), wanted)
    both = logits(model, adapter={"mix": {"*.mlp.*": 2.0}})
    assert close(both, logits(model, adapter={"one": {"*.mlp.*": 0.2}}))


def test_weights_by_module_change_live(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1.0, "two": 0.5})
    model.set_adapter("mix")
    model.set_adapter_weights("mix", {"one": GLOBS})
    assert close(logits(model), logits(model, adapter={"one": GLOBS, "two": 0.5}))
    model.set_adapter_weights("mix", {"one": 0.3})
    assert model.active_weights() == {"one": 0.3, "two": 0.5}


@pytest.mark.parametrize(
    ("globs", "idle"),
    [
        ({"*": 1.0, "*.mlp.*": 0.1}, "*.mlp.*"),
        ({"*.mpl.*": 0.1, "*": 1.0}, "*.mpl.*"),
        ({"*.norm": 1.0}, "*.norm"),
    ],
)
def test_a_glob_that_matches_no_module_is_an_error(
    globs: dict[str, float], idle: str, model: AdaptedModel
) -> None:
    with pytest.raises(RoutingError) as caught:
        model.define_composition("mix", {"one": globs})
    assert caught.value.code == "AD709"
    assert caught.value.findings[0].found == idle
    assert "mix" not in model.compositions


def test_other_methods_take_one_weight_for_each(model: AdaptedModel) -> None:
    with pytest.raises(RoutingError) as caught:
        model.define_composition("mix", {"one": GLOBS, "two": 1.0}, combine="svd")
    assert caught.value.code == "AD174"


def test_wrong_weights_by_module_are_refused(model: AdaptedModel) -> None:
    for wrong in ({}, {"*": "1"}, {"*": float("inf")}, {1: 1.0}, {"*": True}):
        with pytest.raises(RoutingError):
            model.set_adapter({"one": wrong})  # type: ignore[dict-item]


def test_a_replaced_module_must_have_weight_1(tmp_path: Path) -> None:
    headed = peft_saves(
        tiny_llama(), tmp_path / "h", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    model = with_adapters(tiny_llama(), headed=headed)
    with pytest.raises(RoutingError, match="replaces module"):
        model.set_adapter({"headed": {"*": 0.5}})
    model.set_adapter({"headed": {"lm_head": 1, "*": 0.5}})
    assert not torch.equal(logits(model), headed.answer)
    model.set_adapter({"headed": {"lm_head": 1, "*": 1}})
    assert close(logits(model), headed.answer)
