"""Entries: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from adapterdock.registry.records.entry import (
    DEPTH,
    LIMIT,
    Entry,
    InvalidEntryError,
    NewerEntryError,
    parse_object,
    read_entry,
)
from adapterdock.registry.records.series import canonical
from hypothesis import given
from hypothesis import strategies as some

DIGEST = "sha256:" + "0" * 64


def data(**fields: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "team/refunds",
        "version": "2.1.0",
        "created": "2026-11-30T06:00:00Z",
        "digest": DIGEST,
        "folder": DIGEST,
        "files": [
            {"path": "adapter_model.safetensors", "size": 5, "sha256": DIGEST, "role": "weights"}
        ],
        "method": {
            "peft_type": "LORA",
            "rank": 8,
            "lowest_rank": 8,
            "dtype": "F32",
            "parameters": 100,
        },
        "base": {"source": "hf://org/base"},
        **fields,
    }


def read(**fields: Any) -> Entry:
    return read_entry(canonical(data(**fields)), "team/refunds", "2.1.0")


def test_an_entry_reads_back_as_it_was_written() -> None:
    entry = read(licence="MIT", metrics={"accuracy": 0.9})
    assert entry.licence == "MIT"
    assert canonical(entry.model_dump(mode="json", exclude_unset=True)) == canonical(
        data(licence="MIT", metrics={"accuracy": 0.9})
    )


def test_an_unknown_field_is_kept_and_an_unknown_critical_one_is_refused() -> None:
    entry = read(colour={"deep": 1})
    assert entry.model_dump(exclude_unset=True)["colour"] == {"deep": 1}
    with pytest.raises(InvalidEntryError, match="colour"):
        read(colour=1, critical=["licence", "colour"])
    with pytest.raises(NewerEntryError):
        read(format=2, method="of another shape")
    assert read(critical=["licence"]).critical == ("licence",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "team/other"}, "team/other"),
        ({"version": "2.1.1"}, "2.1.1"),
        ({"format": 2}, "format"),
        ({"format": True}, "format"),
        ({"digest": "sha256:0"}, "digest"),
        ({"files": []}, "files"),
        ({"tags": "one"}, "tags"),
        ({"metrics": {"accuracy": "0.9"}}, "metrics"),
        ({"created": None}, "created"),
    ],
)
def test_another_or_wrong_entry_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidEntryError, match=says):
        read(**fields)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"a":"' + b"x" * LIMIT + b'"}',
    ],
)
def test_what_is_not_a_small_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEntryError):
        parse_object(raw)


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from([*data(), "rank", "path", "x"]), inner, max_size=4)
    ),
)


@given(some.dictionaries(some.sampled_from([*data(), "x"]), _JSON, max_size=4))
def test_any_json_is_an_entry_or_refused(fields: dict[str, Any]) -> None:
    raw = json.dumps(data(**fields)).encode()
    try:
        read_entry(raw, "team/refunds", "2.1.0")
    except InvalidEntryError:
        return


def test_a_metric_that_is_not_finite_is_refused() -> None:
    raw = canonical(data(metrics={"loss": 1.5})).replace(b"1.5", b"1e999")
    with pytest.raises(InvalidEntryError, match="too large a number"):
        read_entry(raw, "team/refunds", "2.1.0")


@given(some.binary(max_size=200))
def test_any_bytes_are_an_entry_or_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEntryError):
        read_entry(raw, "team/refunds", "2.1.0")
