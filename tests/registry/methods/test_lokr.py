"""LoKr on disk: fields, plan and misfits, on what PEFT saved."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.registry.files.facts import AdapterFacts
from adapterdock.registry.methods.lokr import ROLE_SETS, factorization
from hypothesis import given
from hypothesis import strategies as st
from peft import LoKrConfig
from peft.tuners.lokr.layer import factorization as pefts_factorization
from support.method_fit import check_options, codes, facts_of, look, retensored, tampered, text
from support.peft_adapters import peft_saves, tiny_conv, tiny_llama

UP = "model.layers.0.mlp.up_proj."


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("lokr") / "it"
    peft_saves(
        base,
        folder,
        kind=LoKrConfig,
        target_modules=["up_proj"],
        r=1,
        alpha=6,
        decompose_both=True,
        alpha_pattern={"layers.1.mlp.up_proj": 9},
    )
    return facts_of(folder)


def test_every_field_of_pefts_config_is_classified() -> None:
    check_options("LOKR", LoKrConfig)


@given(st.integers(1, 3000), st.integers(-3, 3100))
def test_sizes_are_split_as_peft_does(size: int, factor: int) -> None:
    assert factorization(size, factor) == pefts_factorization(size, factor)


def test_a_large_prime_is_split_at_once() -> None:
    assert factorization(2_147_483_647, -1) == (1, 2_147_483_647)


def test_sites_have_scales_and_settings(saved: AdapterFacts, base: Any) -> None:
    findings, plan = look(saved, base)
    assert findings == [] and plan is not None
    found = {site.module: (site.rank, site.scale) for site in plan.sites}
    assert found == {"model.layers.0.mlp.up_proj": (1, 6.0), "model.layers.1.mlp.up_proj": (1, 9.0)}
    assert set(plan.sites[0].tensors) == {"w1_a", "w1_b", "w2_a", "w2_b"}
    assert dict(plan.sites[0].settings) == {"factor": -1, "decompose_both": True}
    dropped = tampered(saved, rank_dropout=0.5, module_dropout=0.25, rank_dropout_scale=True)
    _, plan = look(dropped, base)
    assert plan is not None
    assert plan.sites[0].settings["rank_dropout"] == 0.5
    assert plan.sites[0].settings["module_dropout"] == 0.25
    assert plan.sites[0].settings["rank_dropout_scale"] is True


def test_there_are_six_sets_of_factors() -> None:
    assert len(ROLE_SETS) == len(set(ROLE_SETS)) == 6


@pytest.mark.parametrize("r", [1, 8])
@pytest.mark.parametrize("effective", [True, False])
def test_convolutions_fit(r: int, effective: bool, tmp_path_factory: Any) -> None:
    base, folder = tiny_conv(), tmp_path_factory.mktemp("lokr") / "it"
    settings = {"target_modules": ["first", "grouped"], "r": r, "use_effective_conv2d": effective}
    peft_saves(base, folder, kind=LoKrConfig, **settings)
    assert codes(facts_of(folder), base) == []


@pytest.mark.parametrize(
    ("role", "shape", "expected"),
    [
        ("w1_a", (4, 2), "(4, 1)"),
        ("w1_b", (1, 5), "(1, 4)"),
        ("w2_a", (1, 6), "(6, 1)"),
        ("w2_b", (4,), "(1, 4)"),
    ],
)
def test_a_factor_with_a_wrong_size_is_a_misfit(
    role: str, shape: tuple[int, ...], expected: str, saved: AdapterFacts, base: Any
) -> None:
    facts = retensored(saved, {f"{UP}lokr_{role}": shape})
    assert codes(facts, base) == ["AD343"]
    assert f"{expected}, by the base's module" in text(facts, base)


@pytest.mark.parametrize("role", ["w1_a", "w1_b", "w2_a", "w2_b"])
def test_a_missing_factor_is_reported(role: str, saved: AdapterFacts, base: Any) -> None:
    assert codes(retensored(saved, {f"{UP}lokr_{role}": None}), base) == ["AD331"]


def test_a_full_factor_with_its_low_rank_factors_is_refused(saved: AdapterFacts, base: Any) -> None:
    assert codes(retensored(saved, {f"{UP}lokr_w1": (4, 4)}), base) == ["AD371"]


@pytest.mark.parametrize(
    "fields", [{"decompose_both": False}, {"decompose_factor": 2}, {"r": 2}, {"r": 12}]
)
def test_a_config_for_other_factors_is_a_misfit(
    fields: dict[str, Any], saved: AdapterFacts, base: Any
) -> None:
    assert set(codes(tampered(saved, **fields), base)) <= {"AD343", "AD371"}
    assert codes(tampered(saved, **fields), base)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("decompose_factor", None, "AD313"),
        ("decompose_factor", 2.0, "AD313"),
        ("decompose_both", "yes", "AD313"),
        ("rank_dropout_scale", 1, "AD313"),
        ("use_rslora", True, "AD315"),
        ("use_tucker", True, "AD359"),
        ("use_scalar", False, "AD316"),
    ],
)
def test_fields_that_lokr_does_not_have_are_reported(
    field: str, value: Any, code: str, saved: AdapterFacts, base: Any
) -> None:
    assert code in codes(tampered(saved, **{field: value}), base)
