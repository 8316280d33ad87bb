"""The base that an adapter's file records, without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from adapterdock.manifests.language.schema import Fingerprint, WeightDigests
from adapterdock.registry.base.base_record import read, recordable, written
from adapterdock.registry.base.fingerprint import Measured
from adapterdock.registry.checks.base_record import check, proven
from adapterdock.registry.files.facts import BASE_RECORD


def digest(letter: str) -> str:
    return "v1:sha256:" + letter * 64


def digests(letter: str) -> WeightDigests:
    return WeightDigests(float32=digest(letter), bfloat16=digest(letter), float16=digest(letter))


def measured(**changes: Any) -> Measured:
    levels: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "hidden_size": 16,
        "structure": digest("a"),
        "heads": digest("b"),
        "config": digest("c"),
        "weights": digests("d"),
        "head_weights": digests("e"),
        "tokenizer": digest("f"),
    }
    return Measured(Fingerprint(**{**levels, **changes}))


def record(base: Measured, *, modules: bool = False, rows: bool = False) -> dict[str, str]:
    found = recordable(base, brings_modules=modules, brings_rows=rows)
    return {"format": "pt", BASE_RECORD: written(found)}


def test_a_record_is_read_as_it_was_written_and_has_no_tokenizer() -> None:
    base = measured()
    found = read(record(base))
    assert found == base.fingerprint.model_copy(update={"tokenizer": None})
    assert read({"format": "pt"}) is None


def test_levels_in_doubt_are_not_recorded() -> None:
    for level, gone in (
        ("structure", {"structure", "heads"}),
        ("config", {"config"}),
        ("weights", {"weights", "head_weights"}),
    ):
        found = recordable(
            replace(measured(), doubts={level: "why"}), brings_modules=False, brings_rows=False
        )
        assert not gone & found.model_dump(exclude_none=True).keys()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"weights": digests("0")}, "AD380"),
        ({"structure": digest("0")}, "AD380"),
        ({"config": digest("0")}, "AD380"),
        ({"hidden_size": 32}, "AD380"),
        ({"head_weights": digests("0")}, "AD380"),
        ({"weights": None}, "AD381"),
    ],
)
def test_each_level_detects_another_base(change: dict[str, Any], code: str | None) -> None:
    metadata = record(measured())
    found = check(metadata, measured(**change))
    assert [finding.code for finding in found] == ([code] if code else [])
    assert proven(metadata, found) is (code is None)


def test_replaced_heads_are_not_recorded() -> None:
    metadata = record(measured(), modules=True)
    assert not check(metadata, measured(head_weights=digests("0"), heads=digest("0")))
    assert check(metadata, measured(weights=digests("0")))


def test_a_base_with_added_rows_may_have_another_shape() -> None:
    metadata = record(measured(), modules=True, rows=True)
    other = measured(structure=digest("0"), weights=digests("0"))
    assert not check(metadata, other)
    assert not proven(metadata, []), "nothing was compared that tells two trainings apart"


def test_values_that_were_not_read_are_not_compared() -> None:
    metadata = record(measured())
    assert not check(metadata, measured(weights=None, head_weights=None), weights=False)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"structure": "v9:x"}', '{"x": 1}'])
def test_an_unreadable_record_is_not_a_pass(text: str) -> None:
    found = check({BASE_RECORD: text}, measured())
    assert [finding.code for finding in found] == ["AD382"]
