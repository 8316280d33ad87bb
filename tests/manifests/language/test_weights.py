"""Weights by module: the first matching glob counts; sums and products are weights too."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.language.weights import (
    ModuleWeights,
    Weight,
    plus,
    shown,
    times,
    weight_at,
    weight_of,
)
from hypothesis import given
from hypothesis import strategies as st
from support.manifest_files import HEADER, Desk

TWO = HEADER + "adapters:\n  billing: {source: ./billing}\n  tone: {source: ./tone}\n"
MODULES = ("a", "b.mlp", "b.attn", "c.mlp.up")

globs = st.dictionaries(
    st.sampled_from(["*", "*.mlp*", "a", "b.*", "none"]), st.integers(-3, 3), min_size=1
)
weights: Any = st.one_of(st.integers(-3, 3).map(float), globs.map(ModuleWeights.of))


def test_the_first_glob_that_matches_the_full_name_counts() -> None:
    weight = weight_of({"*.mlp.*": 0.1, "b.*": 0.5, "*.attn": 2.0})
    assert [weight_at(weight, name) for name in MODULES] == [0.0, 0.5, 0.5, 0.1]
    assert weight_at(0.3, "a") == 0.3


@given(one=weights, other=weights)
def test_sums_and_products_are_computed_for_each_module(one: Weight, other: Weight) -> None:
    for name in MODULES:
        assert weight_at(plus(one, other), name) == weight_at(one, name) + weight_at(other, name)
        assert weight_at(times(one, other), name) == weight_at(one, name) * weight_at(other, name)


@given(one=globs)
def test_a_glob_is_idle_if_removing_it_changes_nothing(one: dict[str, float]) -> None:
    weight = ModuleWeights.of({glob: index + 1.0 for index, glob in enumerate(one)})
    idle = weight.idle(MODULES)
    for glob in one:
        rest = ModuleWeights.of({g: w for (g,), w in _pairs(weight) if g != glob})
        same = all(rest.at(name) == weight.at(name) for name in MODULES)
        assert same == (glob in idle)


def _pairs(weight: ModuleWeights) -> list[tuple[tuple[str], float]]:
    return [((glob,), value) for term in weight.terms for part in term for glob, value in part]


def test_weights_are_shown_as_written() -> None:
    assert shown(0.5) == "0.5" and shown(1.0) == "1"
    assert shown(weight_of({"*": 0.5})) == "{'*': 0.5}"


# -- in a manifest --------------------------------------------------------------------------


def test_a_sum_accepts_weights_by_module(desk: Desk) -> None:
    text = TWO + "compositions: {m: {of: {billing: 1, tone: {'*.mlp.*': 0.1, '*': 0.4}}}}\n"
    of = desk.read(text).manifest.compositions["m"].of
    assert dict(of) == {"billing": 1.0, "tone": {"*.mlp.*": 0.1, "*": 0.4}}
    assert hash(of) == hash(of)


def test_other_methods_accept_one_weight_for_each_member(desk: Desk) -> None:
    text = TWO + "compositions: {m: {combine: svd, of: {billing: 1, tone: {'*': 0.4}}}}\n"
    found = desk.findings(text)
    assert [(f.code, f.where.dotted) for f in found] == [("AD174", "compositions.m.of.tone")]


@pytest.mark.parametrize(
    ("weight", "code", "place"),
    [
        ("{}", "AD125", "compositions.m.of.tone"),
        ("{'*': 0}", "AD176", "compositions.m.of.tone"),
        ("{'*': .inf, b: 1}", "AD176", "compositions.m.of.tone.*"),
        ("{'*': much}", "AD121", "compositions.m.of.tone.*"),
        ("[1]", "AD121", "compositions.m.of.tone"),
        ("much", "AD121", "compositions.m.of.tone"),
    ],
)
def test_wrong_weights_are_reported_at_their_place(
    weight: str, code: str, place: str, desk: Desk
) -> None:
    found = desk.findings(TWO + f"compositions: {{m: {{of: {{tone: {weight}}}}}}}\n")
    assert [(f.code, f.where.dotted) for f in found] == [(code, place)]


def test_nested_sums_multiply_weights_by_module(desk: Desk) -> None:
    from adapterdock.manifests.language.rules import flatten

    text = TWO + (
        "compositions:\n"
        "  inner: {of: {billing: {'*.mlp': 2, '*': 1}, tone: 3}}\n"
        "  outer: {of: {inner: {'b.*': 0.5}, billing: 1}}\n"
    )
    flat = flatten(desk.read(text).manifest, "outer")
    assert [weight_at(flat["billing"], name) for name in MODULES] == [1.0, 2.0, 1.5, 1.0]
    assert [weight_at(flat["tone"], name) for name in MODULES] == [0.0, 1.5, 1.5, 0.0]
