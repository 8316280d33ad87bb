"""`adapterdock serve` as a process of its own, asked by the openai client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
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
import yaml
from adapterdock.serving.app.following import Follower
from adapterdock.serving.app.loaded import load_served
from adapterdock.serving.app.settings import Settings
from support.peft_adapters import tiny_llama
from support.served import PROMPT, write_served
from support.web import WebServer
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
def serving(manifest: Path | str, *options: str, **environment: str) -> Iterator[Running]:
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
        found = re.search(r"Serving .* at (http://\S+)", "".join(lines))
        assert found, "".join(lines)
        yield Running(process, found[1], lines)
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
            while (health := open_.get("/health").status_code) == 200:
                time.sleep(0.02)
            assert health == 503
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


def _answer(connection: socket.socket) -> str:
    """Headers and JSON, which may come in several pieces."""
    told = b""
    while not told.rstrip().endswith(b"}") and (piece := connection.recv(10_000)):
        told += piece
    return told.decode()


def _sent(url: str, body: bytes, length: int) -> socket.socket:
    """A connection that sent these bytes of a body that has ``length``."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\n"
        b"Content-Length: " + str(length).encode() + b"\r\n\r\n" + body
    )
    return connection


def test_a_server_that_stops_ends_with_its_drain_whatever_callers_do(manifest: Path) -> None:
    asked: dict[str, Any] = {"model": "a", "prompt": PROMPT, "temperature": 0}
    options = (
        "--rows",
        "4",
        "--max-tokens",
        "90000",
        "--drain",
        "8",
        "--follow",
        "0",
        "--wait",
        "2",
    )
    with serving(manifest, *options, ADAPTERDOCK_API_KEYS=f"mobile={KEY}") as server:
        client = server.client()
        body = json.dumps({**asked, "max_tokens": 2}).encode()
        half, late = (_sent(server.url, body[:10], len(body)) for _ in range(2))
        deaf = json.dumps({**asked, "max_tokens": 80000, "stream": True, "n": 2}).encode()
        unread = _sent(server.url, deaf, len(deaf))  # and does not read its answer
        stream = client.completions.create(**asked, max_tokens=80000, stream=True)
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        time.sleep(1)
        late.sendall(body[10:])  # within the drain
        with pytest.raises(openai.APIError, match="stopped before the answer was complete"):
            for _ in stream:
                pass
        told = _answer(half)
        while not any("Stopped" in line for line in server.lines):
            time.sleep(0.05)
            assert time.monotonic() - began < 8 + 6  # on a busy machine
        assert server.process.wait(60) == 143
        assert told.startswith("HTTP/1.1 503")
        error = json.loads(told.partition("\r\n\r\n")[2])["error"]
        assert (error["code"], error["type"]) == ("AD974", "server_error")
        assert late.recv(10_000)
        for connection in (half, late, unread):
            connection.close()
        assert "Traceback" not in "".join(server.lines)


def test_a_manifest_at_a_url_is_served_also_while_it_is_out_of_reach(
    manifest: Path, tmp_path: Path, web: WebServer
) -> None:
    data = yaml.safe_load(manifest.read_text())
    data["base"]["model"] = str(manifest.parent / "base")
    for name, adapter in data["adapters"].items():
        adapter["source"] = str(manifest.parent / name)
    there = tmp_path / "there.yaml"
    there.write_text(yaml.safe_dump(data))
    adapterdock.lock(there)
    web.files = {f"/{path.name}": path.read_bytes() for path in tmp_path.glob("there.*")}
    url = f"{web.url}/there.yaml"
    Follower(load_served(Settings(url))).close()
    web.status = dict.fromkeys(web.files, 503)
    with serving(url, "--follow", "0", ADAPTERDOCK_API_KEYS=f"mobile={KEY}") as server:
        assert [one.id for one in server.client().models.list()] == ["a"]
        assert any("AD223" in line for line in server.lines)


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
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = cli("serve", manifest, "--port", taken.getsockname()[1])
    assert (result.exit_code, "AD975" in result.stderr) == (2, True), result.output
    assert "Loading the base" not in result.stderr  # which may take minutes


def test_quiet_says_the_address_and_nothing_else(
    cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.serving.app import server

    def answer(*arguments: Any) -> None:
        arguments[-1]("http://127.0.0.1:1")

    monkeypatch.setattr(server, "serve", answer)
    said = cli("serve", manifest, "-q")
    assert said.exit_code == 0
    assert said.output == "Serving 2 adapters and the base at http://127.0.0.1:1\n"


@pytest.mark.parametrize("keys", [None, f"mobile={KEY}"])
def test_a_policy_of_keys_without_keys_is_a_warning(
    keys: str | None, cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.serving.app import server

    monkeypatch.setattr(server, "serve", lambda *given: given[-1]("http://127.0.0.1:1"))
    if keys is not None:
        monkeypatch.setenv("ADAPTERDOCK_API_KEYS", keys)
    said = cli("serve", manifest).stderr
    assert ("nobody can use the adapters" in said) == (keys is None)


def test_with_a_log_in_json_every_line_is_json_also_the_error_that_ends_it(
    cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.serving.app import server

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        call = ("serve", manifest, "--port", taken.getsockname()[1], "--log-format", "json")
        at_once = cli(*call)
        bound, tried = server.bound, []

        def free_at_first(*given: Any) -> socket.socket:
            tried.append(given)
            return socket.socket() if len(tried) == 1 else bound(*given)

        monkeypatch.setattr(server, "bound", free_at_first)
        loaded = cli(*call)
    for result, levels in ((at_once, set[str]()), (loaded, {"WARNING"})):
        assert (result.exit_code, result.stdout) == (2, "")
        said = [json.loads(line) for line in result.stderr.splitlines()]
        assert {one["event"] for one in said} == {"finding"}
        *found, last = [(one["level"], *one["codes"]) for one in said]
        assert ({level for level, _ in found}, last) == (levels, ("ERROR", "AD975"))


def test_a_missing_package_is_named(
    cli: Cli, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    result = cli("serve", manifest)
    assert (result.exit_code, "uvicorn is not installed" in result.stderr) == (2, True)
    assert "adapterdock[serve]" in result.stderr
