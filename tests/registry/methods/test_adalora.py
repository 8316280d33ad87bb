"""AdaLoRA on disk: fields, plan and misfits, on what PEFT saved."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.registry.files.facts import AdapterFacts
from adapterdock.registry.methods.options import Support
from adapterdock.registry.methods.table import METHODS
from peft import AdaLoraConfig
from support.method_fit import check_options, codes, facts_of, look, retensored, tampered, text
from support.peft_adapters import peft_saves, tiny_bert, tiny_conv, tiny_llama

Q0 = "model.layers.0.self_attn.q_proj"
Q1 = "model.layers.1.self_attn.q_proj"
STEPS = {"total_step": 10}


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("adalora") / "it"

    def allocate(model: Any) -> None:
        model.peft_config["default"].rank_pattern = {
            f"{Q0}.lora_E.default": [True, False, False, True],
            f"{Q1}.lora_E.default": [True, True, True, False],
        }

    settings = {"target_modules": ["q_proj"], "init_r": 4, **STEPS}
    peft_saves(base, folder, kind=AdaLoraConfig, change=allocate, **settings)
    return facts_of(folder)


def test_every_field_of_pefts_config_is_classified() -> None:
    check_options("ADALORA", AdaLoraConfig, older={"enable_lora", "merge_weights"})


def test_sites_have_the_ranks_that_training_kept(saved: AdapterFacts, base: Any) -> None:
    findings, plan = look(saved, base)
    assert findings == [] and plan is not None
    assert {site.module: site.rank for site in plan.sites} == {Q0: 2, Q1: 3}
    assert all(site.scale == pytest.approx(8 / (4 + 1e-5), abs=0) for site in plan.sites)
    _, plan = look(tampered(saved, lora_alpha=0), base)
    assert plan is not None
    found = {site.module: site.scale for site in plan.sites}
    assert found == {Q0: 2 / (4 + 1e-5), Q1: 3 / (4 + 1e-5)}


def test_rank_pattern_keys_may_end_in_the_adapter_name(saved: AdapterFacts, base: Any) -> None:
    """PEFT writes it into a config that it saves during training."""
    pattern = {f"{name}.mine": left for name, left in saved.config["rank_pattern"].items()}
    assert codes(tampered(saved, rank_pattern=pattern), base) == []


def test_without_rank_pattern_all_directions_are_required(saved: AdapterFacts, base: Any) -> None:
    assert codes(tampered(saved, rank_pattern=None), base) == ["AD343"]


@pytest.mark.parametrize(
    ("role", "shape", "expected"),
    [("A", (2, 17), "(2, 16)"), ("B", (16, 3), "(16, 2)"), ("E", (2,), "(2, 1)")],
)
def test_a_factor_with_a_wrong_size_is_a_misfit(
    role: str, shape: tuple[int, ...], expected: str, saved: AdapterFacts, base: Any
) -> None:
    facts = retensored(saved, {f"{Q0}.lora_{role}": shape})
    assert codes(facts, base) == ["AD343"]
    assert f"{expected}, by the base's module" in text(facts, base)


@pytest.mark.parametrize("role", ["A", "B", "E"])
def test_a_missing_factor_is_reported(role: str, saved: AdapterFacts, base: Any) -> None:
    facts = retensored(saved, {f"{Q0}.lora_{role}": None})
    assert codes(facts, base) == ["AD331"]
    assert f"lora_{role} is missing" in text(facts, base)


def test_lora_keys_are_leftovers_in_adalora(saved: AdapterFacts, base: Any) -> None:
    facts = retensored(saved, {f"{Q0}.lora_A.weight": (2, 16)})
    assert "AD332" in codes(facts, base)


def test_grouped_and_non_2d_convolutions_are_refused(tmp_path_factory: Any) -> None:
    base, folder = tiny_conv(), tmp_path_factory.mktemp("adalora") / "it"
    settings = {"target_modules": ["first"], "init_r": 3, **STEPS}
    peft_saves(base, folder, kind=AdaLoraConfig, **settings)
    facts = facts_of(folder)
    assert codes(facts, base) == []
    for name, out, inner in (("grouped", 8, 72), ("line", 6, 24)):
        shapes = {"A": (3, inner), "B": (out, 3), "E": (3, 1)}
        more = retensored(facts, {f"{name}.lora_{role}": s for role, s in shapes.items()})
        assert codes(tampered(more, target_modules=["first", name]), base) == ["AD371"]


def test_trained_biases_are_placed(tmp_path_factory: Any) -> None:
    base, folder = tiny_bert(), tmp_path_factory.mktemp("adalora") / "it"
    settings = {"target_modules": ["query"], "bias": "lora_only", **STEPS}
    peft_saves(base, folder, kind=AdaLoraConfig, **settings)
    findings, plan = look(facts_of(folder), base)
    assert findings == [] and plan is not None and len(plan.biases) == 2


REFUSED = [
    option.name
    for option in METHODS["ADALORA"].options
    if option.support in (Support.NOT_YET, Support.NEVER)
]


@pytest.mark.parametrize("field", REFUSED)
def test_unsupported_fields_are_refused_by_name(field: str, saved: AdapterFacts, base: Any) -> None:
    facts = tampered(saved, **{field: [1]})
    assert codes(facts, base) == ["AD314"]
    assert field in text(facts, base)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("init_r", 0, "AD313"),
        ("rank_pattern", {f"{Q0}.lora_E": [1, 0, 0, 1]}, "AD313"),
        ("rank_pattern", {f"{Q0}.lora_E": 2}, "AD313"),
        ("rank_pattern", {f"{Q0}.lora_E": [True, True]}, "AD317"),
        ("lora_alpha", "8", "AD313"),
        ("alpha", 3, "AD315"),
    ],
)
def test_invalid_fields_are_reported(
    field: str, value: Any, code: str, saved: AdapterFacts, base: Any
) -> None:
    assert code in codes(tampered(saved, **{field: value}), base)


@pytest.mark.parametrize("init", ["pissa", "olora", False, "gaussian"])
def test_no_initialisation_of_adalora_changes_the_base(
    init: Any, saved: AdapterFacts, base: Any
) -> None:
    assert codes(tampered(saved, init_lora_weights=init), base) == []
