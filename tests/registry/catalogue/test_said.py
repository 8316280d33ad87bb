"""What a publisher says of a version: values that an entry can hold, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.catalogue.make_entry import Said
from adapterdock.registry.catalogue.said import said_of
from adapterdock.registry.records.entry import Provenance


def test_everything_may_be_left_out() -> None:
    assert said_of() == Said()


def test_numbers_of_other_libraries_and_lists_are_taken() -> None:
    import numpy as np

    said = said_of(
        tags=["a", "b"],
        metrics={"accuracy": np.float32(0.5), "steps": 100},
        provenance={"data": ["tickets"], "code": "abc", "more": 1},
    )
    assert said.tags == ("a", "b")
    assert said.metrics == {"accuracy": 0.5, "steps": 100.0}
    assert {type(value) for value in said.metrics.values()} == {float}
    assert said.provenance.data == ("tickets",)
    assert said.provenance.model_dump()["more"] == 1
    assert said_of(provenance=Provenance(code="abc")).provenance.code == "abc"


def test_names_and_urls_of_data_are_no_paths() -> None:
    names = ["tickets/2026", "s3://data/tickets", "c://x", "hf://org/data", "a: b", "...and more"]
    assert list(said_of(provenance={"data": names}).provenance.data) == names


@pytest.mark.parametrize(
    "fields",
    [
        {"licence": 3},
        {"owner": ["me"]},
        {"tags": "one"},
        {"tags": [1]},
        {"metrics": {"accuracy": float("nan")}},
        {"metrics": {"accuracy": float("inf")}},
        {"metrics": {"accuracy": True}},
        {"metrics": {"accuracy": "0.9"}},
        {"metrics": {1: 0.9}},
        {"provenance": {"data": "tickets"}},
        {"provenance": {"code": b"a commit"}},
        {"provenance": {"data": ["tickets", "/home/ada/tickets.jsonl"]}},
        {"provenance": {"data": ["./tickets.jsonl"]}},
        {"provenance": {"data": ["C:\\Users\\ada\\tickets.jsonl"]}},
        {"provenance": {"parents": ["~/adapters/tone"]}},
        {"provenance": Provenance(parents=("file:///home/ada/tone",))},
    ],
    ids=str,
)
def test_other_values_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        said_of(**fields)
    assert caught.value.code == "AD835"
    assert next(iter(fields)) in str(caught.value)


def test_what_is_wrong_in_provenance_is_said_in_plain_words() -> None:
    for provenance, problem in (
        ({"data": "tickets"}, "data must be a list"),
        ({"code": 5}, "code must be text"),
    ):
        with pytest.raises(UsageError) as caught:
            said_of(provenance=provenance)
        assert caught.value.findings[0].message == f"Invalid provenance: {problem}"
