"""What is refused before it runs: keys, names, fields, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapterdock.serving.app.keys import read_keys
from adapterdock.serving.app.limits import Limits
from adapterdock.serving.app.requests import ChatRequest, CompletionRequest, EmbeddingsRequest
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError
from support.peft_adapters import tiny_llama
from support.served import PROMPT, eventually, served, write_served

MOBILE, OPS, UNLISTED = "mobile-" + "k" * 16, "ops-" + "k" * 16, "unlisted-" + "k" * 16
KEYS = read_keys(f"mobile={MOBILE},ops={OPS},unlisted={UNLISTED}")
TARGETS = {"target_modules": ["q_proj"]}
GOOD = {"model": "a", "prompt": PROMPT, "temperature": 0, "max_tokens": 4}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return write_served(folder, tiny_llama(), {"a": TARGETS, "secret-b": TARGETS})


@pytest.fixture(scope="module")
def client(manifest: Path) -> Iterator[TestClient]:
    limits = Limits(body_bytes=4000, new_tokens=20, choices=3)
    with served(manifest, limits=limits) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """With keys, and a policy of the platform that restricts one of them."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text("allow_keys: {mobile: [a, 'team-*'], ops: ['*']}\n")
    with served(manifest, keys=KEYS, policy=policy) as client:
        yield client


def post(client: TestClient, key: str | None = None, path: str = "completions", **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return client.post(f"/v1/{path}", json={**GOOD, **more}, headers=headers)


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["models", "completions", "adapterdock/status", "nothing"])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_a_key_no_route_answers(guarded: TestClient, path: str, key: str | None) -> None:
    answer = post(guarded, key, path)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "AD972"
    assert "secret-b" not in answer.text


def test_health_needs_no_key(guarded: TestClient) -> None:
    assert guarded.get("/health").json() == {"status": "ok"}


def test_a_key_may_use_what_its_policy_allows_and_sees_no_other_names(guarded: TestClient) -> None:
    assert post(guarded, MOBILE).status_code == 200
    unknown = post(guarded, MOBILE, model="team-x")
    forbidden = post(guarded, MOBILE, model="secret-b")
    for answer, name in ((unknown, "team-x"), (forbidden, "secret-b")):
        assert answer.status_code == 404
        assert answer.text.replace(name, "NAME") == unknown.text.replace("team-x", "NAME")
    assert post(guarded, MOBILE, model="__base__").status_code == 404
    listed = guarded.get("/v1/models", headers={"Authorization": f"Bearer {MOBILE}"}).json()
    assert [one["id"] for one in listed["data"]] == ["a"]
    for name, status in (("a", 200), ("secret-b", 404), ("team-x", 404)):
        headers = {"Authorization": f"Bearer {MOBILE}"}
        assert guarded.get(f"/v1/models/{name}", headers=headers).status_code == status
    assert post(guarded, UNLISTED).status_code == 404
    assert post(guarded, OPS, model="secret-b").status_code == 200


def test_status_and_metrics_are_not_for_a_key_that_may_not_know_every_name(
    guarded: TestClient,
) -> None:
    for path in ("status", "metrics"):
        for key in (MOBILE, OPS):
            headers = {"Authorization": f"Bearer {key}"}
            answer = guarded.get(f"/v1/adapterdock/{path}", headers=headers)
            assert answer.status_code == (403 if key == MOBILE else 200)
            if key == MOBILE:
                assert answer.json()["error"]["type"] == "permission_error"
            assert key == OPS or "secret-b" not in answer.text


# -- fields ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [61]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"guided_json": {}}, "guided_json"),
        ({"body": 1}, "body"),
        ({"str": 1}, "str"),
        ({"seed": 1 << 70}, "seed"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 7.5}, "max_tokens"),
        ({"n": "1"}, "n"),
        ({"seed": "7"}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"presence_penalty": "0"}, "presence_penalty"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"model": None}, "model"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_a_field_that_is_wrong_or_not_served_is_named(
    client: TestClient, more: dict[str, Any], param: str
) -> None:
    answer = post(client, **more)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("AD968", param)
    assert error["type"] == "invalid_request_error"
    assert "[" not in error["message"]
    assert "Input should" not in error["message"] and "Value error" not in error["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", "w5 \ud800"), ("prompt", ["w5", "\udfff"]), ("stop", "\ud800")]
)
def test_half_of_a_surrogate_pair_is_no_text(client: TestClient, field: str, value: Any) -> None:
    body = json.dumps({**GOOD, field: value})  # escaped, as JSON allows
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/completions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    whole = json.dumps({**GOOD, field: "w5 \U0001f600"})
    assert client.post("/v1/completions", content=whole, headers=headers).status_code == 200


def test_null_asks_for_the_default_and_a_whole_number_is_a_number(client: TestClient) -> None:
    optional = ("top_p", "top_k", "n", "seed", "stop", "stream", "stream_options")
    assert post(client, **dict.fromkeys(optional)).status_code == 200
    assert post(client, temperature=None, max_tokens=None).status_code == 200
    assert post(client, temperature=1, top_p=1, presence_penalty=0).status_code == 200


def test_a_body_of_another_type_is_told_its_content_type(client: TestClient) -> None:
    body = json.dumps(GOOD)
    for said in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        answer = client.post("/v1/completions", content=body, headers={"Content-Type": said})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (415, "AD968")
        assert said in error["message"] and "application/json" in error["message"]
        assert error["type"] == "invalid_request_error"
    for said in ("application/json; charset=utf-8", "application/vnd.x+json"):
        answer = client.post("/v1/completions", content=body, headers={"Content-Type": said})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 4}, "n"),
        ({"n": 4, "prompt": ["w5", "w6"]}, "n"),
        ({"n": 2, "prompt": ["w5", "w6"]}, "prompt"),
        ({"prompt": ["w5"] * 4}, "prompt"),
    ],
)
def test_too_many_rows_are_of_the_field_that_asks_for_them(
    client: TestClient, more: dict[str, Any], param: str
) -> None:
    answer = post(client, **more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert post(client, n=3).status_code == 200


def test_values_that_ask_for_nothing_are_accepted(client: TestClient) -> None:
    neutral = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 1}
    assert post(client, **neutral, echo=False, logprobs=None, user="x").status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"", b"\xff", b'"x"', b"null", b"[" * 2000, b'{"n": ' + b"9" * 3900 + b"e"],
)
def test_a_body_that_is_no_object_is_refused(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/completions", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "AD968")
    assert "Use a route" not in answer.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, {"prompt": [[]] * 10_000}),
        (CompletionRequest, {"prompt": [["w5"]] * 10_000}),
        (CompletionRequest, {"prompt": [[-1] * 10_000]}),
        (CompletionRequest, {"prompt": "w5", "stop": [1] * 10_000}),
        (CompletionRequest, {"prompt": "w5", "logit_bias": dict.fromkeys(map(str, range(9999)))}),
        (CompletionRequest, {"prompt": "w5", **dict.fromkeys(map(str, range(9999)))}),
        (EmbeddingsRequest, {"input": [None] * 10_000}),
        (ChatRequest, {"messages": [{}] * 10_000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 10_000}]}),
        (ChatRequest, {"messages": [{"role": "user", "content": "", "tool_calls": [1] * 10_000}]}),
    ],
)
def test_a_large_body_has_few_errors(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as wrong:
        kind.model_validate({"model": "a", **body})
    assert wrong.value.error_count() < 10


def test_an_answer_can_be_sent_back_as_the_next_message(client: TestClient) -> None:
    asked: dict[str, Any] = {"model": "a", "max_tokens": 2}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "w5"}]
    answer = client.post("/v1/chat/completions", json={**asked, "messages": messages})
    said = answer.json()["choices"][0]["message"]
    messages += [said, {**said, "annotations": [], "tool_calls": None, "audio": None}]
    again = client.post("/v1/chat/completions", json={**asked, "messages": messages})
    assert again.status_code == 200, again.text
    more = [*messages, {**said, "tool_calls": [{"id": "x"}]}]
    assert client.post("/v1/chat/completions", json={**asked, "messages": more}).status_code == 400
    other = client.post(
        "/v1/chat/completions", json={**asked, "messages": [{**messages[0], "weight": 1}]}
    )
    assert "'messages.0.weight' is not served" in other.text


def test_a_template_that_rejects_messages_says_so(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}w5"
    )
    manifest = write_served(tmp_path, tiny_llama(), {"a": TARGETS}, template=template)
    with served(manifest) as client:
        chat = {"model": "a", "messages": [{"role": "system", "content": "w5"}]}
        answer = client.post("/v1/chat/completions", json=chat)
    assert (answer.status_code, "no system" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/", "/v1/completions/x", "/docs", "/openapi.json"])
def test_another_path_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_another_method_is_not_allowed(client: TestClient) -> None:
    assert client.get("/v1/completions").status_code == 405


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": 21}, "max_tokens"),
        ({"n": 4}, "n"),
        ({"prompt": ["w5"] * 2, "n": 2}, "prompt"),
        ({"prompt": "w5 " * 70}, "prompt"),
        ({"prompt": "w5 " * 50, "max_tokens": 15}, "prompt"),
        ({"stop": ["w5"] * 5}, "stop"),
        ({"stop": "w" * 201}, "stop"),
    ],
)
def test_a_request_for_too_much_is_refused(
    client: TestClient, more: dict[str, Any], param: str
) -> None:
    answer = post(client, **more)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("AD970", param)


def test_the_limits_themselves_are_allowed(client: TestClient) -> None:
    for more in ({"max_tokens": 20}, {"n": 3}, {"prompt": "w5 " * 50, "max_tokens": 14}):
        assert post(client, **more).status_code == 200, more
    answer = client.post("/v1/completions", json={"model": "a", "prompt": "w5 " * 60})
    assert answer.json()["usage"]["completion_tokens"] <= 4  # the rest of the base's 64


def test_a_large_body_is_refused_whatever_its_header_says(client: TestClient) -> None:
    assert post(client, prompt="w5 " * 2000).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'{"model": "a", "prompt": "'
        for _ in range(50):
            yield b"w5 " * 100
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/completions", content=pieces(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "AD970")


def test_the_inputs_of_vectors_have_limits_too(client: TestClient) -> None:
    request: dict[str, Any] = {"model": "a", "input": ["w5"] * 4}
    assert client.post("/v1/embeddings", json=request).status_code == 400
    request = {"model": "a", "input": "w5 " * 65}
    assert client.post("/v1/embeddings", json=request).status_code == 400


def test_more_rows_than_may_wait_get_503_and_when_to_come_again(manifest: Path) -> None:
    limits = Limits(waiting=2, wait_seconds=3.0)
    with served(manifest, limits=limits) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, client, n=2)
        batcher = client.app.state.batcher  # type: ignore[attr-defined]
        eventually(lambda: batcher.waiting == 2)
        answer = post(client)
        assert first.result().status_code == 200
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["code"] == "AD974"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"prompt": [-1]}, "text, token ids (from 0 on), or a list of either"),
        ({"prompt": [PROMPT, 5]}, "text, token ids (from 0 on), or a list of either"),
        ({"stop": [5]}, "text, or a list of texts"),
        ({"prompt": "\ud800"}, "text without halves of surrogate pairs"),
        ({"stop": ["\ud800"]}, "text without halves of surrogate pairs"),
        ({"temperature": 2.5}, "at most 2.0"),
    ],
)
def test_a_field_that_may_be_several_things_says_all_of_them(
    client: TestClient, more: dict[str, Any], expected: str
) -> None:
    answer = client.post(
        "/v1/completions",
        content=json.dumps({**GOOD, **more}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert f"expected: {expected};" in answer.json()["error"]["message"]


def test_more_rows_than_may_wait_are_refused_for_good(manifest: Path) -> None:
    with served(manifest, limits=Limits(waiting=2)) as client:
        refused = post(client, n=3)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "AD970")
        assert "at most 2" in refused.text and "Retry-After" not in refused.headers
        assert post(client, n=2).status_code == 200
