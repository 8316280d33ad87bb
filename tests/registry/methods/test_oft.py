"""OFT on disk: fields, plan and misfits, on what PEFT saved."""

from __future__ import annotations

import math
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Severity
from adapterdock.registry.files.facts import AdapterFacts
from adapterdock.registry.methods.oft import blocks_of
from hypothesis import given
from hypothesis import strategies as st
from peft import OFTConfig
from peft.tuners.oft.layer import OFTLayer
from support.method_fit import check_options, codes, facts_of, look, retensored, tampered, text
from support.peft_adapters import peft_saves, tiny_bert, tiny_conv, tiny_llama

QUERY = "model.layers.0.self_attn.q_proj.oft_R.weight"
EMBEDDING = "model.embed_tokens.oft_embedding_R.weight"


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> AdapterFacts:
    folder = tmp_path_factory.mktemp("oft") / "it"
    targets = ["q_proj", "embed_tokens"]
    peft_saves(base, folder, kind=OFTConfig, target_modules=targets, oft_block_size=4)
    return facts_of(folder)


def test_every_field_of_pefts_config_is_classified() -> None:
    check_options("OFT", OFTConfig)


@given(st.integers(1, 400), st.integers(1, 500), st.booleans())
def test_a_size_that_does_not_divide_is_replaced_as_in_peft(
    width: int, wanted: int, by_size: bool
) -> None:
    adjusted = wanted
    if width % wanted or wanted > width:
        adjusted = OFTLayer.adjust_oft_parameters(None, width, wanted)  # type: ignore[arg-type]
    expected = (width // adjusted, adjusted) if by_size else (adjusted, width // adjusted)
    found = blocks_of(width, 0, wanted) if by_size else blocks_of(width, wanted, 0)
    assert found == expected
    assert math.prod(found) == width


def test_each_rotation_is_placed(saved: AdapterFacts, base: Any) -> None:
    findings, plan = look(saved, base)
    assert [f for f in findings if f.severity is not Severity.WARNING] == []
    assert plan is not None and plan.rank == 0
    roles = {site.module: list(site.tensors) for site in plan.sites}
    assert roles == {
        "model.embed_tokens": ["embedding_R"],
        "model.layers.0.self_attn.q_proj": ["R"],
        "model.layers.1.self_attn.q_proj": ["R"],
    }
    assert dict(plan.sites[0].settings) == {
        "r": 0,
        "block_size": 4,
        "block_share": False,
        "terms": 5,
        "eps": None,
    }


def test_sites_have_settings(saved: AdapterFacts, base: Any) -> None:
    facts = tampered(saved, use_cayley_neumann=False, coft=True, eps=0.5)
    _, plan = look(facts, base)
    assert plan is not None
    assert plan.sites[0].settings["terms"] is None
    assert plan.sites[0].settings["eps"] == 0.5


@pytest.mark.parametrize(
    ("name", "shape"), [(QUERY, (4, 5)), (QUERY, (3, 6)), (QUERY, (24,)), (EMBEDDING, (2, 28))]
)
def test_a_rotation_with_a_wrong_size_is_a_misfit(
    name: str, shape: tuple[int, ...], saved: AdapterFacts, base: Any
) -> None:
    facts = retensored(saved, {name: shape})
    assert "AD343" in codes(facts, base)
    assert "(4, 6), by the base's module" in text(facts, base)


@pytest.mark.parametrize(
    "fields", [{"block_share": True}, {"oft_block_size": 8}, {"oft_block_size": 0, "r": 2}]
)
def test_a_wrong_block_size_in_the_config_is_a_misfit(
    fields: dict[str, Any], saved: AdapterFacts, base: Any
) -> None:
    assert "AD343" in codes(tampered(saved, **fields), base)


def test_a_linear_rotation_at_an_embedding_is_refused(saved: AdapterFacts, base: Any) -> None:
    facts = retensored(saved, {EMBEDDING: None, "model.embed_tokens.oft_R.weight": (4, 6)})
    assert "AD344" in codes(facts, base)


@pytest.mark.parametrize(
    "fields",
    [
        {"oft_block_size": 4, "r": 4},
        {"oft_block_size": 0, "r": 0},
        {"oft_block_size": ...},
    ],
)
def test_exactly_one_of_number_and_size_of_blocks_is_required(
    fields: dict[str, Any], saved: AdapterFacts, base: Any
) -> None:
    assert "AD317" in codes(tampered(saved, **fields), base)


def test_the_oft_of_old_peft_versions_is_reported(saved: AdapterFacts, base: Any) -> None:
    facts = tampered(saved, oft_block_size=..., r=4)
    assert "PEFT before 0.14" in text(facts, base)


@pytest.mark.parametrize("version", [..., None, "0.17.1", "0.16.0"])
def test_the_neumann_series_of_earlier_peft_versions_is_unchecked(
    version: Any, saved: AdapterFacts, base: Any
) -> None:
    findings, plan = look(tampered(saved, peft_version=version), base)
    told = [finding for finding in findings if finding.code == "AD370"]
    assert len(told) == 1 and told[0].severity is Severity.UNCHECKED
    assert plan is not None
    exact = tampered(saved, peft_version=version, use_cayley_neumann=False)
    assert "AD370" not in codes(exact, base)


@pytest.mark.parametrize("version", ["0.18.0", "0.18.0.dev0@abc", "0.21.2"])
def test_the_neumann_series_of_current_peft_versions_is_accepted(
    version: str, saved: AdapterFacts, base: Any
) -> None:
    assert "AD370" not in codes(tampered(saved, peft_version=version), base)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("r", -1, "AD313"),
        ("oft_block_size", 4.0, "AD313"),
        ("eps", "small", "AD313"),
        ("num_cayley_neumann_terms", 10**9, "AD313"),
        ("use_cayley_neumann", None, "AD313"),
        ("bias", "lora_only", "AD313"),
        ("alpha", 3, "AD315"),
    ],
)
def test_invalid_fields_are_reported(
    field: str, value: Any, code: str, saved: AdapterFacts, base: Any
) -> None:
    assert code in codes(tampered(saved, **{field: value}), base)


@pytest.mark.parametrize("bias", ["oft_only", "all"])
def test_trained_biases_are_placed(bias: str, tmp_path_factory: Any) -> None:
    base, folder = tiny_bert(), tmp_path_factory.mktemp("oft") / "it"
    settings = {"target_modules": ["query"], "oft_block_size": 4, "bias": bias}
    peft_saves(base, folder, kind=OFTConfig, **settings)
    findings, plan = look(facts_of(folder), base)
    assert findings == [] and plan is not None
    assert "bert.encoder.layer.0.attention.self.query" in plan.biases
    assert (len(plan.biases) > 2) is (bias == "all")


def test_convolutions_fit_only_with_square_kernels(tmp_path_factory: Any) -> None:
    base, folder = tiny_conv(), tmp_path_factory.mktemp("oft") / "it"
    settings = {"target_modules": ["first", "grouped"], "oft_block_size": 9}
    peft_saves(base, folder, kind=OFTConfig, **settings)
    facts = facts_of(folder)
    assert codes(facts, base) == []
    line = retensored(facts, {"line.oft_R.weight": (1, 1)})
    assert codes(tampered(line, target_modules=["first", "grouped", "line"]), base) == ["AD371"]
