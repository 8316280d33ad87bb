"""Answers that are not what they should be are refused with a reason, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from adapterdock.serving.fleet.answers import (
    BadAnswerError,
    read_completion,
    read_models,
    read_status,
)

DIGEST = "sha256:" + "1" * 64
STATUS: dict[str, Any] = {
    "schema": "adapterdock.status/1",
    "engine": {"name": "vllm", "version": "0.32.0"},
    "base": {"model": "hf://org/base", "fingerprint": None},
    "state": "serving",
    "checked": "2026-11-30T12:00:00Z",
    "adapters": {"tone": {"digest": DIGEST, "revision": "", "size": 1, "since": "x"}},
    "wanted": {"tone": DIGEST},
    "findings": [{"code": "AD604", "message": "No space", "severity": "error"}],
    "followed": {"tone": {"locked": DIGEST}},
}


def test_a_status_is_read() -> None:
    status = read_status(json.dumps(STATUS).encode())
    assert (status.engine, status.base, status.state) == ("vllm 0.32.0", "hf://org/base", "serving")
    assert status.adapters == status.wanted == {"tone": DIGEST}
    assert status.problems == ("AD604: No space",)
    assert status.followed == {"tone": DIGEST}


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "adapterdock.status/2"},
        {"schema": None},
        {"schema": ["adapterdock.status/1"]},
        {"engine": "vllm"},
        {"engine": None},
        {"base": []},
        {"state": 1},
        {"adapters": [DIGEST]},
        {"adapters": {"tone": DIGEST}},
        {"adapters": {"tone": {"digest": "1" * 64}}},
        {"adapters": {"tone": {"digest": None}}},
        {"adapters": {"tone": {"digest": DIGEST + "\n"}}},
        {"wanted": {"tone": 1.5}},
        {"wanted": float("nan")},
        {"findings": [{"code": 1}]},
        {"findings": {}},
        {"followed": {"tone": "sha256:1"}},
    ],
)
def test_a_status_with_another_schema_or_wrong_types_is_refused(changes: Any) -> None:
    with pytest.raises(BadAnswerError):
        read_status(json.dumps({**STATUS, **changes}).encode())


@pytest.mark.parametrize("missing", ["schema", "engine", "base", "state", "adapters"])
def test_a_status_without_a_field_is_refused(missing: str) -> None:
    with pytest.raises(BadAnswerError):
        read_status(json.dumps({k: v for k, v in STATUS.items() if k != missing}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"null", b"[]", b"3", b'"x"', b"{", b"<html>", b"\xff\xfe", b"NaN", b"{}"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"schema": NaN}', b'{"a":1e999}'),
        *(b'{"schema": "\\ud800"}', b'{"schema": 1, "schema": 2}'),
    ],
)
@pytest.mark.parametrize("read", [read_status, read_models, read_completion])
def test_bytes_that_are_no_answer_are_refused(read: Callable[[bytes], Any], raw: bytes) -> None:
    with pytest.raises(BadAnswerError) as refused:
        read(raw)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


def test_models_are_read_and_the_base_has_no_parent() -> None:
    cards = [{"id": "b", "root": "/b", "parent": None}, {"id": "a", "root": "/a", "parent": "b"}]
    models = read_models(json.dumps({"data": cards}).encode())
    assert (models.roots, models.bases) == ({"a": "/a", "b": "/b"}, {"b"})


@pytest.mark.parametrize("data", [None, {}, [1], [{"id": 1}], [{"root": "x"}], [{"id": "a"}] * 2])
def test_a_wrong_list_of_models_is_refused(data: Any) -> None:
    with pytest.raises(BadAnswerError):
        read_models(json.dumps({"data": data}).encode())


@pytest.mark.parametrize("choices", [None, [], [{}], [{"text": None}], "x"])
def test_a_wrong_completion_is_refused(choices: Any) -> None:
    with pytest.raises(BadAnswerError):
        read_completion(json.dumps({"choices": choices}).encode())


def test_a_key_that_is_sent_back_is_hidden() -> None:
    def hide(text: str) -> str:
        return text.replace("secret", "***")

    said = {**STATUS, "engine": {"name": "secret", "version": "secret"}, "state": "\\secret"}
    said["findings"] = [{"code": "x", "message": "Bearer secret"}]
    said["adapters"] = {"secret": {"digest": DIGEST}}
    raw = json.dumps(said).encode().replace(b"secret", b"\\u0073ecret", 1)
    assert "secret" not in repr(read_status(raw, hide))
    with pytest.raises(BadAnswerError) as refused:
        read_status(json.dumps({**STATUS, "adapters": {"secret": 1}}).encode(), hide)
    assert "secret" not in str(refused.value)
    with pytest.raises(BadAnswerError) as refused:
        read_status(json.dumps({"schema": "secret"}).encode(), hide)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("read", "raw", "said"),
    [
        (read_models, b'{"data": 5}', "its list of models is invalid: data: expected a list"),
        (read_models, b"{}", "its list of models is invalid: data is missing"),
        (read_models, b'{"data": [{"id": 5}]}', "data.0.id: expected text"),
        (read_completion, b'{"choices": []}', "choices: expected at least 1 entry"),
    ],
)
def test_a_wrong_answer_is_told_in_plain_words(
    read: Callable[[bytes], Any], raw: bytes, said: str
) -> None:
    with pytest.raises(BadAnswerError) as refused:
        read(raw)
    assert said in str(refused.value)
