"""IA3 on disk: fields, plan and misfits, on what PEFT saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.files.facts import AdapterFacts
from adapterdock.registry.methods.ia3 import is_feedforward
from adapterdock.registry.methods.patterns import Patterns
from peft import IA3Config
from support.method_fit import (
    check_options,
    codes,
    facts_of,
    look,
    planned,
    retensored,
    tampered,
    text,
)
from support.peft_adapters import peft_saves, tiny_conv, tiny_llama

DOWN = "model.layers.0.mlp.down_proj.ia3_l"
VALUE = "model.layers.1.self_attn.v_proj.ia3_l"


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("ia3") / "it"
    peft_saves(
        base,
        folder,
        kind=IA3Config,
        target_modules=["v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )
    return facts_of(folder)


def test_every_field_of_pefts_config_is_classified() -> None:
    check_options("IA3", IA3Config)


def test_each_vector_is_placed(saved: AdapterFacts, base: Any) -> None:
    findings, plan = look(saved, base)
    assert findings == []
    assert plan is not None and plan.leftovers == () and plan.rank == 0
    assert {site.module.rpartition(".")[2] for site in plan.sites} == {"v_proj", "down_proj"}
    for site in plan.sites:
        assert site.method == "IA3" and site.scale == 1 and list(site.tensors) == ["l"]
        assert site.settings["feedforward"] is site.module.endswith("down_proj")


def test_convolution_vectors_have_channels_in_the_second_dimension(tmp_path: Path) -> None:
    base = tiny_conv()
    peft_saves(
        base,
        tmp_path / "it",
        kind=IA3Config,
        target_modules=["first", "deep"],
        feedforward_modules=["deep"],
    )
    assert codes(facts_of(tmp_path / "it"), base) == []
    facts = retensored(facts_of(tmp_path / "it"), {"first.ia3_l": (8, 1)})
    assert "(1, 8, 1, 1)" in text(facts, base)


def test_one_dimensional_convolutions_are_refused(tmp_path: Path) -> None:
    base = tiny_conv()
    peft_saves(
        base, tmp_path / "it", kind=IA3Config, target_modules=["head"], feedforward_modules=[]
    )
    facts = tampered(facts_of(tmp_path / "it"), target_modules=["line"])
    facts = retensored(facts, {"head.ia3_l": None, "line.ia3_l": (1, 6, 1)})
    assert codes(facts, base) == ["AD371"]
    assert "one dimension" in text(facts, base)


@pytest.mark.parametrize("shape", [(17, 1), (1, 24), (24,), (24, 1)])
def test_a_vector_with_a_wrong_size_is_a_misfit(
    shape: tuple[int, ...], saved: AdapterFacts, base: Any
) -> None:
    facts = retensored(saved, {VALUE: shape})
    assert codes(facts, base) == ["AD343"]
    assert "(8, 1), by the base's module" in text(facts, base)


def test_an_input_vector_where_the_config_says_output_is_a_misfit(
    saved: AdapterFacts, base: Any
) -> None:
    assert codes(tampered(saved, feedforward_modules=[]), base) == ["AD343"]
    assert codes(tampered(saved, feedforward_modules=["v_proj", "down_proj"]), base) == ["AD343"]


@pytest.mark.parametrize("missing", [None, ...])
def test_feedforward_modules_is_required(missing: Any, saved: AdapterFacts, base: Any) -> None:
    facts = tampered(saved, feedforward_modules=missing)
    assert codes(facts, base) == ["AD371"]
    assert "feedforward_modules is not in adapter_config.json" in text(facts, base)


def test_a_missing_vector_is_reported(saved: AdapterFacts, base: Any) -> None:
    assert "AD333" in codes(retensored(saved, {DOWN: None}), base)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("feedforward_modules", 3, "AD313"),
        ("fan_in_fan_out", "yes", "AD313"),
        ("feedforward_modules", "(", "AD319"),
        ("layers_to_transform", [1], "AD315"),
        ("use_dora", True, "AD315"),
        ("alpha", 8, "AD315"),
    ],
)
def test_fields_that_ia3_does_not_have_are_refused(
    field: str, value: Any, code: str, saved: AdapterFacts, base: Any
) -> None:
    assert code in codes(tampered(saved, **{field: value}), base)


def test_an_unused_pattern_must_be_valid(saved: AdapterFacts, base: Any) -> None:
    names = [name.removeprefix("base_model.model.") for name in saved.header.tensors]
    facts = retensored(saved, dict.fromkeys(names))
    assert "AD319" not in codes(facts, base)
    assert "AD319" in codes(tampered(facts, feedforward_modules="("), base)


def test_without_a_layout_the_plan_has_the_files_names(saved: AdapterFacts) -> None:
    plan = planned("IA3", saved.config, saved.header.tensors)
    assert DOWN.removesuffix(".ia3_l") in plan.modules


def test_feedforward_endings_ignore_dots_and_patterns_match_complete_names() -> None:
    assert is_feedforward(("proj",), "mlp.down_proj", Patterns()) is True
    assert is_feedforward("down_proj", "mlp.down_proj", Patterns()) is False
    assert is_feedforward(".*down_proj", "mlp.down_proj", Patterns()) is True
    assert is_feedforward(None, "mlp.down_proj", Patterns()) is None
