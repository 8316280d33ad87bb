"""Completions and chats: rows of many requests in one batch, each as it would be alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.generate_text import load_tokenizer
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file
from support.peft_adapters import tiny_llama
from support.served import PROMPT, ask, served, write_served

TARGETS = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
CHAT = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a`` to ``c``, a composition, one whose values overflow, and one with virtual tokens."""
    from peft import PromptTuningConfig

    folder = tmp_path_factory.mktemp("served")
    prompt = {"kind": PromptTuningConfig, "task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    adapters: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("a", "b", "c", "broken", "needy"), TARGETS),
        "virtual": prompt,
    }
    path = write_served(
        folder,
        tiny_llama(),
        adapters,
        compositions={"both": {"of": {"a": 1.0, "b": 0.5}}},
        rules={"requires": {"needy": ["a"]}},
    )
    file = folder / "broken" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: torch.full_like(t, 3e38) for name, t in tensors.items()}, file)
    return path


@pytest.fixture(scope="module")
def client(manifest: Path) -> Iterator[TestClient]:
    from adapterdock.serving.app.limits import Limits

    with served(manifest, limits=Limits(wait_seconds=0.3)) as client:
        yield client


@pytest.fixture(scope="module")
def alone(manifest: Path) -> Any:
    """What the loader answers by itself, by adapter."""
    model = adapterdock.load(manifest)
    tokenizer = load_tokenizer(model)

    def answer(adapter: str, prompt: str = PROMPT, tokens: int = 8) -> str:
        inputs = tokenizer(prompt, return_tensors="pt")
        out = model.generate(
            **{k: v for k, v in inputs.items() if k != "token_type_ids"},
            adapter=None if adapter == "__base__" else adapter,
            max_new_tokens=tokens,
            do_sample=False,
        )
        return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer


def batches(client: TestClient) -> list[float]:
    """How many batches ran, their rows and their adapters."""
    lines = client.get("/v1/adapterdock/metrics").text.splitlines()
    found = {line.split()[0]: float(line.split()[-1]) for line in lines if line[0] != "#"}
    names = ("rows_count", "rows_sum", "adapters_sum")
    return [found[f"adapterdock_batch_{name}"] for name in names]


def together(client: TestClient, *bodies: dict[str, Any]) -> list[Any]:
    """Requests at the same time."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: client.post("/v1/completions", json=body), bodies))


def body(model: str, prompt: Any = PROMPT, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 8, **more}


def text(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_mixed_rows_match_single_runs(client: TestClient, alone: Any) -> None:
    names = ["a", "b", "c", "both", "__base__", "a"]
    prompts = [PROMPT, "w7", "w8 w9 w10 w11 w12", PROMPT, "w20 w21", "w33 w34"]
    before = batches(client)
    answers = together(
        client, *(body(name, prompt) for name, prompt in zip(names, prompts, strict=True))
    )
    after = batches(client)
    for name, prompt, answer in zip(names, prompts, answers, strict=True):
        assert text(answer).split() == alone(name, prompt).split(), name
    assert [late - early for early, late in zip(before, after, strict=True)] == [1, 6, 5]


def test_rows_of_one_batch_end_at_their_own_lengths(client: TestClient, alone: Any) -> None:
    short, long = together(client, body("a", max_tokens=2), body("b", max_tokens=12))
    assert text(short).split() == alone("a", tokens=2).split()
    assert text(long).split() == alone("b", tokens=12).split()
    assert short.json()["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
    }
    assert short.json()["choices"][0]["finish_reason"] == "length"


def test_a_bad_name_beside_good_ones_fails_alone_and_lists_no_names(
    client: TestClient, alone: Any
) -> None:
    good, bad, other = together(client, body("a"), body("aa"), body("b"))
    assert (text(good).split(), text(other).split()) == (alone("a").split(), alone("b").split())
    assert (bad.status_code, bad.json()["error"]["code"]) == (404, "model_not_found")
    assert "both" not in bad.text and "virtual" not in bad.text


def test_an_adapter_that_computes_no_numbers_fails_alone(client: TestClient, alone: Any) -> None:
    good, bad, sampled = together(
        client, body("a"), body("broken"), body("broken", temperature=1.0)
    )
    assert text(good).split() == alone("a").split()
    assert [bad.status_code, sampled.status_code] == [500, 500]
    assert "AD785" in bad.text
    assert ask(client, "a").split() == alone("a").split()  # and it does not last


def test_a_stop_text_ends_its_row_only(client: TestClient, alone: Any) -> None:
    words = alone("a").split()
    stopped, other = together(client, body("a", stop=[words[3]]), body("b"))
    assert text(stopped).split() == words[: words.index(words[3])]
    assert stopped.json()["choices"][0]["finish_reason"] == "stop"
    assert text(other).split() == alone("b").split()


def test_a_seed_gives_the_same_sample_whatever_is_in_the_batch(client: TestClient) -> None:
    sampled = body("a", temperature=1.5, seed=5, top_p=0.9, top_k=30)
    first = text(client.post("/v1/completions", json=sampled))
    again, *_ = together(client, sampled, body("b", temperature=1.5), body("c"))
    other = text(client.post("/v1/completions", json={**sampled, "seed": 6}))
    assert text(again) == first != other


def test_n_choices_of_several_prompts_come_in_order(client: TestClient, alone: Any) -> None:
    answer = client.post("/v1/completions", json=body("a", [PROMPT, "w7"], n=2)).json()
    found = [choice["text"].split() for choice in answer["choices"]]
    one, two = alone("a").split(), alone("a", "w7").split()
    assert found == [one, one, two, two]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"]["prompt_tokens"] == 4


def test_tokens_as_prompt_are_the_same_as_their_text(client: TestClient) -> None:
    assert ask(client, "a", [5, 9, 11]) == ask(client, "a")
    assert ask(client, "a", [[5, 9, 11]]) == ask(client, "a")


def test_adapters_with_virtual_tokens_run_beside_others(client: TestClient, alone: Any) -> None:
    answers = together(client, body("virtual"), body("a"), body("virtual", "w7"))
    expected = [alone("virtual"), alone("a"), alone("virtual", "w7")]
    assert [text(one).split() for one in answers] == [one.split() for one in expected]


def test_an_adapter_that_the_rules_forbid_alone_is_refused_and_not_listed(
    client: TestClient,
) -> None:
    refused = client.post("/v1/completions", json=body("needy"))
    assert (refused.status_code, "rules forbid" in refused.text) == (400, True)
    listed = [one["id"] for one in client.get("/v1/models").json()["data"]]
    assert listed == ["__base__", "a", "b", "c", "broken", "virtual", "both"]
    assert client.get("/v1/models/both").json()["id"] == "both"
    assert client.get("/v1/models/needy").status_code == 404


def stream(client: TestClient, path: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", path, json={**request, "stream": True}) as answer:
        assert answer.status_code == 200
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_streamed_rows_add_up_to_the_whole_answers(client: TestClient) -> None:
    request = body("a", [PROMPT, "w7"], stream_options={"include_usage": True})
    whole = client.post("/v1/completions", json=body("a", [PROMPT, "w7"])).json()
    *events, usage = stream(client, "/v1/completions", request)
    rows = ["", ""]
    for one in events:
        choice = one["choices"][0]
        rows[choice["index"]] += choice["text"]
    assert rows == [choice["text"] for choice in whole["choices"]]
    assert usage["usage"] == whole["usage"]
    assert len(events) > 6  # they came in pieces
    seen = [one["choices"][0]["index"] for one in events]
    assert seen != sorted(seen)  # and both rows at once


def test_a_streamed_chat_begins_with_its_role(client: TestClient) -> None:
    request = {"model": "a", "messages": CHAT, "temperature": 0, "max_tokens": 5}
    whole = client.post("/v1/chat/completions", json=request).json()["choices"][0]
    deltas = [one["choices"][0]["delta"] for one in stream(client, "/v1/chat/completions", request)]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]


def test_a_stream_that_cannot_begin_has_a_status(client: TestClient) -> None:
    answer = client.post("/v1/completions", json=body("broken", stream=True))
    assert (answer.status_code, "AD785" in answer.text) == (500, True)


def test_a_chat_is_rendered_by_the_base_template(client: TestClient) -> None:
    messages = [
        {"role": "system", "content": "w5"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "w9 "}, {"type": "text", "text": "w11"}],
        },
    ]
    request = {"model": "a", "messages": messages, "temperature": 0, "max_completion_tokens": 8}
    answer = client.post("/v1/chat/completions", json=request).json()
    assert answer["choices"][0]["message"]["content"] == ask(client, "a")
    assert answer["object"] == "chat.completion"


def test_the_name_of_who_speaks_reaches_the_template(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.name or 'w7' }} {{ m.content }} {% endfor %}"
    manifest = write_served(tmp_path, tiny_llama(), {}, template=template)
    with served(manifest) as client:
        for more, prompt in (({"name": "w33"}, "w33 w5"), ({}, "w7 w5"), ({"name": None}, "w7 w5")):
            messages = [{"role": "user", "content": "w5", **more}]
            request = {"model": "__base__", "messages": messages, "temperature": 0, "max_tokens": 8}
            answer = client.post("/v1/chat/completions", json=request).json()
            assert answer["choices"][0]["message"]["content"] == ask(client, "__base__", prompt)


def test_a_residency_budget_for_one_adapter_answers_all(manifest: Path, alone: Any) -> None:
    with served(manifest, residency="6KB") as client:
        answers = together(client, *(body(name) for name in "abcba"))
        for name, answer in zip("abcba", answers, strict=True):
            assert text(answer).split() == alone(name).split()


def test_a_name_removed_while_its_row_waits_leaves_the_others_together(manifest: Path) -> None:
    from adapterdock.serving.app.rows import GenerationRow
    from fastapi import FastAPI

    with served(manifest) as client:
        app = client.app
        assert isinstance(app, FastAPI)
        engine = app.state.service.engine
        together = engine.key("generate", "a", 3)
        rows = [
            GenerationRow("generate", name, lambda piece: None, (5, 9, 11), new_tokens=2)
            for name in ("a", "gone")
        ]
        with pytest.raises(adapterdock.AdapterdockError) as caught:
            engine.run(rows)
        assert caught.value.code == "AD730"
        assert engine.key("generate", "a", 3) == together == engine.key("generate", "b", 4)
