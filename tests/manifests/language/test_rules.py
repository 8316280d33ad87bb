"""Which adapters a selection activates, and whether the rules allow them."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.findings.errors import RoutingError
from adapterdock.manifests.findings.finding import Severity, Where
from adapterdock.manifests.language.rules import check_active, flatten
from adapterdock.manifests.language.schema import Manifest, Rules
from hypothesis import given, settings
from hypothesis import strategies as st

MANIFEST = Manifest.model_validate(
    {
        "version": 1,
        "adapters": {name: {"source": f"./{name}"} for name in ("a", "b", "c")},
        "compositions": {
            "s": {"of": {"a": 1.0, "b": 0.5}},
            "t": {"of": {"s": 2.0, "b": 1.0, "c": -1.0}},
            "m": {"combine": "ties", "of": {"a": 0.7, "c": 0.3}, "density": 0.5},
        },
    }
)


def test_a_composition_is_multiplied_out() -> None:
    assert flatten(MANIFEST, "a") == {"a": 1.0}
    assert flatten(MANIFEST, "s") == {"a": 1.0, "b": 0.5}
    assert flatten(MANIFEST, "t") == {"a": 2.0, "b": 2.0, "c": -1.0}
    assert flatten(MANIFEST, "m") == {"a": 0.7, "c": 0.3}
    assert flatten(MANIFEST, ["s", "b"]) == {"a": 1.0, "b": 1.5}
    assert flatten(MANIFEST, {"t": 0.5, "c": 2.0}) == {"a": 1.0, "b": 1.0, "c": 1.5}
    assert flatten(MANIFEST, []) == {}


def test_an_unknown_name_is_a_routing_error_with_the_nearest_name() -> None:
    with pytest.raises(RoutingError) as caught:
        flatten(MANIFEST, ["a", "bb"])
    assert caught.value.code == "AD171"
    assert caught.value.findings[0].hint == "Did you mean 'b'?"


def test_a_composition_that_contains_itself_is_a_routing_error() -> None:
    loop: dict[str, Any] = {"x": {"of": {"y": 1.0}}, "y": {"of": {"x": 1.0}}}
    manifest = Manifest.model_validate({"version": 1, "compositions": loop})
    with pytest.raises(RoutingError) as caught:
        flatten(manifest, "x")
    assert caught.value.code == "AD173"


WEIGHTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "s", "t"]), st.integers(-8, 8).map(float), max_size=5
)


@settings(deadline=None)
@given(WEIGHTS, st.integers(-4, 4).map(float))
def test_flattening_is_linear(weights: dict[str, float], factor: float) -> None:
    once = flatten(MANIFEST, weights)
    scaled = flatten(MANIFEST, {name: factor * weight for name, weight in weights.items()})
    assert scaled == {name: factor * weight for name, weight in once.items()}


RULES = Rules(
    exclusive=(("a", "b"), ("b", "c")),
    requires={"c": ("a",)},
    max_active=2,
    max_total_rank=24,
)


def codes(active: str, ranks: dict[str, int] | None = None) -> list[str]:
    return [f.code for f in check_active(RULES, dict.fromkeys(active, 1.0), ranks)]


def test_sets_that_the_rules_allow_pass() -> None:
    for active in ("", "a", "b", "ac"):
        assert codes(active, {"a": 8, "b": 8, "c": 16}) == []


def test_each_rule_is_enforced() -> None:
    assert codes("ab") == ["AD804"]
    assert codes("c") == ["AD805"]
    assert codes("abc") == ["AD804", "AD804", "AD806"]


def test_known_ranks_are_checked_and_unknown_ones_unchecked() -> None:
    assert codes("ac", {"a": 16, "c": 16}) == ["AD807"]
    assert codes("ac", {"a": 32}) == ["AD807"]
    assert codes("ac", {"a": 16}) == ["AD808"]
    assert codes("ac", None) == []
    finding = check_active(RULES, {"a": 1.0}, {})[0]
    assert finding.severity is Severity.UNCHECKED


def test_a_finding_has_the_place_that_the_caller_passed() -> None:
    where = Where("x.yaml", ("active",), 3, 4)
    finding = check_active(RULES, {"a": 1.0, "b": 1.0}, None, where)[0]
    assert finding.where == where
    assert finding.message == "'a' and 'b' cannot be active together"
    assert finding.expected == "at most one of a, b"
