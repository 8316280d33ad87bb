"""Tiny models with adapters as a served manifest: any base, with adapters that PEFT saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from adapterdock.serving.app.build_app import build_app
from adapterdock.serving.app.following import Follower
from adapterdock.serving.app.settings import Settings
from fastapi.testclient import TestClient

from support.peft_adapters import peft_saves, word_tokenizer

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
PROMPT = "w5 w9 w11"


def write_served(
    folder: Path,
    base: Any,
    adapters: Mapping[str, Mapping[str, Any]],
    *,
    template: str | None = TEMPLATE,
    tokenizer: bool = True,
    **more: Any,
) -> Path:
    """``adapters.yaml`` for ``base`` with adapters that PEFT saved; ``more`` are further keys of
    the manifest."""
    base.save_pretrained(folder / "base")
    if tokenizer:
        words = word_tokenizer()
        words.chat_template = template
        words.save_pretrained(folder / "base")
    for seed, (name, config) in enumerate(adapters.items()):
        peft_saves(base, folder / name, seed=seed + 3, **config)
    manifest = {
        "version": 1,
        "base": {"model": "./base", "dtype": "float32"},
        "adapters": {name: {"source": f"./{name}"} for name in adapters},
        **more,
    }
    path = folder / "adapters.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return path


@contextmanager
def served(manifest: Path | str, **settings: Any) -> Iterator[TestClient]:
    """A client of the app, in this process."""
    app = build_app(Settings(manifest, **{"period": None, "drain": 5.0, **settings}))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, model: str, prompt: Any = PROMPT, **body: Any) -> str:
    """The text of one completion, greedy unless told otherwise."""
    body = {"temperature": 0, "max_tokens": 8, **body}
    answer = client.post("/v1/completions", json={"model": model, "prompt": prompt, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def revision(follower: Follower) -> str | None:
    """The version of the adapter ``tone`` that a follower serves."""
    deployment = follower.engine.host.deployment
    assert deployment is not None
    return deployment.pulled.lock.adapters["tone"].revision


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)


def completion(model: str, prompt: Any = PROMPT, **more: Any) -> dict[str, Any]:
    """The body of a completion, greedy unless told otherwise."""
    return {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 8, **more}


def said(client: TestClient, request: Mapping[str, Any]) -> str:
    """The text of one answer."""
    answer = client.post("/v1/completions", json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def at_once(client: TestClient, requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of requests that are sent at the same time."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(partial(said, client), requests))
