"""`adapterdock serve` as a process of its own, asked by the openai client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapterdock
import httpx
import openai
import pytest
from support.peft_adapters import tiny_llama
from support.served import PROMPT, write_served
from typer.testing import Result

TARGETS = {"target_modules": ["q_proj", "down_proj"]}
KEY = "mobile-" + "k" * 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    adapters = {"a": TARGETS, "b": TARGETS}
    # a long context, and no word that ends an answer: answers can last
    base = tiny_llama(max_position_embeddings=100_000, eos_token_id=None)
    path = write_served(folder, base, adapters, policy={"allow_keys": {"mobile": ["a"]}})
    adapterdock.lock(path)
    return path


@dataclass
class Running:
    """A server that answers, its address, and what it printed."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)


@contextmanager
def serving(manifest: Path, *options: str, **environment: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "adapterdock", "serve", str(manifest), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    up = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "Serving" in line:
                up.set()
        up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert up.wait(120)
        found = re.search(r"http://\S+", "".join(lines))
        assert found, "".join(lines)
        yield Running(process, found[0], lines)
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        assert process.stderr is not None
        process.stderr.close()


def test_the_openai_client_is_answered_and_a_server_that_stops_finishes_its_answers(
    manifest: Path,
) -> None:
    options = ("--wait", "0.2", "--max-tokens", "3000", "--follow", "0")
    with serving(manifest, *options, ADAPTERDOCK_API_KEYS=f"mobile={KEY}") as server:
        client = server.client()
        assert [one.id for one in client.models.list()] == ["a"]
        chat = [{"role": "user", "content": PROMPT}]
        whole = client.chat.completions.create(
            model="a",
            messages=chat,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=8,
        )
        pieces = client.chat.completions.create(
            model="a",
            messages=chat,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=8,
            stream=True,
        )
        said = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert said == whole.choices[0].message.content != ""
        vectors = client.embeddings.create(model="a", input=["w5", "w6 w7"])
        assert [len(one.embedding) for one in vectors.data] == [16, 16]
        with pytest.raises(openai.NotFoundError) as unknown:
            client.completions.create(model="b", prompt=PROMPT)
        assert "model-not-served" in str(unknown.value)
        with pytest.raises(openai.AuthenticationError):
            server.client("another").models.list()

        def long() -> Any:
            return client.completions.create(
                model="a", prompt=PROMPT, temperature=0, max_tokens=1500
            )

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(long)
            open_ = httpx.Client(base_url=server.url)
            assert open_.get("/health").status_code == 200
            time.sleep(1)
            assert not answer.done()
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert open_.get("/health").status_code == 503
            refused = open_.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "AD974")
            finished = answer.result(60)
        assert finished.usage.completion_tokens == 1500
        assert server.process.wait(30) == 143
        open_.close()
        assert "Traceback" not in "".join(server.lines)


def test_callers_that_go_away_free_the_model_and_answers_longer_than_the_drain_are_cut(
    manifest: Path,
) -> None:
    options = ("--rows", "1", "--max-tokens", "90000", "--drain", "0.5")
    asked: dict[str, Any] = {"model": "a", "prompt": PROMPT, "temperature": 0}
    with serving(manifest, *options, ADAPTERDOCK_API_KEYS=f"mobile={KEY}") as server:
        client = server.client()
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1).completions.create(**asked, max_tokens=80000)
        client.completions.create(**asked, max_tokens=2)
        with client.completions.create(**asked, max_tokens=80000, stream=True) as stream:
            next(iter(stream))
        client.completions.create(**asked, max_tokens=2)

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: client.completions.create(**asked, max_tokens=80000))
            time.sleep(1)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.InternalServerError) as cut:
                answer.result(60)
        assert "server-busy" in str(cut.value)
        assert server.process.wait(60) == 143
        assert "Traceback" not in "".join(server.lines)


# -- what the command refuses ------------------------------------------------------------------

Cli = Callable[..., Result]


def test_other_machines_are_answered_with_keys_only(cli: Cli, manifest: Path) -> None:
    result = cli("serve", manifest, "--host", "0.0.0.0", "--port", 0)
    assert (result.exit_code, "AD976" in result.stderr) == (2, True)


def test_keys_that_cannot_be_used_are_wrong_usage(
    cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_API_KEYS", "mobile=sesame")
    result = cli("serve", manifest)
    assert (result.exit_code, "AD973" in result.stderr) == (2, True)
    assert "sesame" not in result.output


@pytest.mark.parametrize("size", ["8", "x", "-1MB", "1e3MB"])
def test_a_size_that_is_none_is_wrong_usage(cli: Cli, manifest: Path, size: str) -> None:
    result = cli("serve", manifest, f"--max-body={size}")
    assert (result.exit_code, "AD906" in result.stderr) == (2, True)


def test_a_port_that_is_taken_is_wrong_usage(cli: Cli, manifest: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = cli("serve", manifest, "--port", taken.getsockname()[1])
    assert (result.exit_code, "AD975" in result.stderr) == (2, True), result.output


def test_a_missing_package_is_named(
    cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    result = cli("serve", manifest)
    assert (result.exit_code, "uvicorn is not installed" in result.stderr) == (2, True)
    assert "adapterdock[serve]" in result.stderr
