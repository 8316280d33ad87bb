"""LoHa on disk: fields, plan and misfits, on what PEFT saved."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import AdapterFacts
from peft import LoHaConfig
from support.method_fit import check_options, codes, facts_of, look, retensored, tampered, text
from support.peft_adapters import peft_saves, tiny_conv, tiny_llama

QUERY = "model.layers.0.self_attn.q_proj."


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("loha") / "it"
    peft_saves(
        base,
        folder,
        kind=LoHaConfig,
        target_modules=["q_proj", "down_proj"],
        r=3,
        alpha=6,
        rank_pattern={"layers.1.mlp.down_proj": 2},
        alpha_pattern={"q_proj": 9},
    )
    return facts_of(folder)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("loha") / "conv"
    peft_saves(
        tiny_conv(),
        folder,
        kind=LoHaConfig,
        target_modules=["first", "line"],
        r=3,
        use_effective_conv2d=True,
    )
    return facts_of(folder)


def test_every_field_of_pefts_config_is_classified() -> None:
    check_options("LOHA", LoHaConfig)


def test_sites_have_the_ranks_and_scales_of_the_patterns(saved: AdapterFacts, base: Any) -> None:
    findings, plan = look(saved, base)
    assert findings == [] and plan is not None
    found = {site.module: (site.rank, site.scale) for site in plan.sites}
    assert found == {
        "model.layers.0.self_attn.q_proj": (3, 3.0),
        "model.layers.1.self_attn.q_proj": (3, 3.0),
        "model.layers.0.mlp.down_proj": (3, 2.0),
        "model.layers.1.mlp.down_proj": (2, 3.0),
    }
    assert all(not site.settings for site in plan.sites)
    assert plan.rank == 3


def test_dropouts_are_settings_of_the_sites(saved: AdapterFacts, base: Any) -> None:
    facts = tampered(saved, module_dropout=0.25, rank_dropout=0.5)
    findings, plan = look(facts, base)
    assert findings == [] and plan is not None
    assert dict(plan.sites[0].settings) == {"module_dropout": 0.25, "rank_dropout": 0.5}


@pytest.mark.parametrize(
    ("role", "shape", "expected"),
    [
        ("w1_a", (16, 4), "(16, 3)"),
        ("w1_b", (3, 17), "(3, 16)"),
        ("w2_a", (3, 16), "(16, 3)"),
        ("w2_b", (16,), "(3, 16)"),
    ],
)
def test_a_factor_with_a_wrong_size_is_a_misfit(
    role: str, shape: tuple[int, ...], expected: str, saved: AdapterFacts, base: Any
) -> None:
    facts = retensored(saved, {f"{QUERY}hada_{role}": shape})
    assert codes(facts, base) == ["AD343"]
    assert f"{expected}, by the base's module" in text(facts, base)


@pytest.mark.parametrize("role", ["w1_a", "w1_b", "w2_a", "w2_b"])
def test_a_missing_factor_is_reported(role: str, saved: AdapterFacts, base: Any) -> None:
    facts = retensored(saved, {f"{QUERY}hada_{role}": None})
    assert codes(facts, base) == ["AD331"]
    assert f"hada_{role} is missing" in text(facts, base)


def test_a_wrong_rank_in_the_config_is_a_misfit(saved: AdapterFacts, base: Any) -> None:
    assert codes(tampered(saved, r=4), base) == ["AD343"]


def test_effective_kernels_have_separate_tensors(convolutions: AdapterFacts) -> None:
    base = tiny_conv()
    findings, plan = look(convolutions, base)
    assert findings == [] and plan is not None
    assert all(len(site.tensors) == 6 and site.settings["effective"] for site in plan.sites)
    assert codes(tampered(convolutions, use_effective_conv2d=False), base) == ["AD371"]
    gone = retensored(convolutions, {"first.hada_t1": None, "first.hada_t2": None})
    assert codes(gone, base) == ["AD371"]
    half = retensored(convolutions, {"first.hada_t1": None})
    assert codes(half, base) == ["AD371"]
    assert "t1" in text(half, base)


def test_a_kernel_tensor_at_a_linear_module_is_refused(saved: AdapterFacts, base: Any) -> None:
    core = {f"{QUERY}hada_t1": (3, 3, 1, 1), f"{QUERY}hada_t2": (3, 3, 1, 1)}
    assert "AD344" in codes(retensored(saved, core), base)


def test_three_dimensional_convolutions_are_refused(
    convolutions: AdapterFacts,
) -> None:
    shapes = {"w1_a": (2, 3), "w1_b": (3, 4), "w2_a": (2, 3), "w2_b": (3, 4)}
    facts = retensored(convolutions, {f"deep.hada_{n}": shape for n, shape in shapes.items()})
    facts = tampered(facts, target_modules=["first", "line", "deep"], use_effective_conv2d=True)
    assert codes(facts, tiny_conv()) == ["AD371"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("r", 0, "AD313"),
        ("r", "8", "AD313"),
        ("alpha", None, "AD313"),
        ("rank_pattern", {"q_proj": 0}, "AD313"),
        ("rank_pattern", {"(": 2}, "AD319"),
        ("use_effective_conv2d", 1, "AD313"),
        ("module_dropout", "much", "AD313"),
        ("rank_dropout", 1.5, "AD313"),
        ("rank_dropout", True, "AD313"),
        ("decompose_both", True, "AD315"),
        ("lora_alpha", 8, "AD315"),
        ("alpha_pattern", {".*_proj": 3, "q_proj": 9}, "AD323"),
    ],
)
def test_invalid_fields_are_reported(
    field: str, value: Any, code: str, saved: AdapterFacts, base: Any
) -> None:
    assert code in codes(tampered(saved, **{field: value}), base)


def test_an_alpha_of_zero_everywhere_is_empty(saved: AdapterFacts, base: Any) -> None:
    assert codes(tampered(saved, alpha=0, alpha_pattern={}), base) == ["AD330"]


def test_without_a_layout_the_plan_has_the_files_names(saved: AdapterFacts) -> None:
    findings, plan = check_adapter(saved, None)
    assert plan is not None and len(plan.sites) == 4
    assert not any(finding.code == "AD331" for finding in findings)
