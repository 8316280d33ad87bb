"""Ctrl-C, SIGTERM, no network, and an unwritable cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import terminal
from support.builders import write_adapter
from support.hub_server import HubServer
from support.web import WebServer
from typer.testing import Result

Cli = Callable[..., Result]


def hub_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_adapter(folder).iterdir()}


def with_tone(desk: Path, source: str) -> None:
    with (desk / "adapters.yaml").open("a") as stream:
        stream.write(f"  tone:\n    source: {source}\n")


def test_ctrl_c_during_a_download_leaves_nothing_behind(
    at_desk: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.commit("acme/tone", hub_files(at_desk / "tone"))
    with_tone(at_desk, "hf://acme/tone")
    assert terminal.run("lock", cwd=at_desk).status == 0
    hub.fail("slow", "adapter_model.safetensors")
    empty = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_CACHE": str(tmp_path / "hf" / "hub")}
    started = time.monotonic()
    shown = terminal.run_on_terminal("pull", cwd=at_desk, env=empty, interrupt_when=" files")
    assert shown.status == 130, shown.out[-500:]
    assert time.monotonic() - started < 30  # the server is silent for a minute
    assert "Stopped; nothing was left half-done" in shown.out
    assert "Traceback" not in shown.out
    hub.heal()
    assert terminal.run("pull", cwd=at_desk, env=empty).status == 0


def test_ctrl_c_while_reading_sources_stops_quickly(at_desk: Path, hub: HubServer) -> None:
    hub.commit("acme/tone", hub_files(at_desk / "tone"))
    with_tone(at_desk, "hf://acme/tone")
    hub.fail("slow", "adapter_model.safetensors")
    started = time.monotonic()
    reading = lambda: hub.count("adapter_model.safetensors") > 0  # noqa: E731
    shown = terminal.run_on_terminal("lock", cwd=at_desk, interrupt_when=reading)
    assert shown.status == 130, shown.out[-500:]
    assert time.monotonic() - started < 30  # the server is silent for a minute
    assert "Traceback" not in shown.out
    assert not (at_desk / "adapters.lock").exists()


def test_remote_sources_are_unchecked_without_a_network(cli: Cli, at_desk: Path) -> None:
    with_tone(at_desk, "https://127.0.0.1:9/tone")
    result = cli("validate")
    assert result.exit_code == 3
    assert "AD257" in result.stdout
    assert "1 check could not run (exit 3)" in result.stdout
    locked = cli("lock")
    assert locked.exit_code == 3
    assert "Traceback" not in locked.output


def test_an_unwritable_cache_is_a_finding(
    cli: Cli, at_desk: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_CACHE", "/proc/adapterdock")
    assert cli("validate").exit_code == 0
    for name in ("ls", "verify"):
        assert cli("cache", name).exit_code == 0
    assert cli("pull").exit_code == 0, "local files need no cache"
    for path in write_adapter(at_desk / "tone").iterdir():
        web.files[f"/tone/{path.name}"] = path.read_bytes()
    with_tone(at_desk, f"{web.url}/tone")
    result = cli("lock")
    assert (result.exit_code, "error AD6" in result.stderr) == (1, True), result.output
    assert not (at_desk / "adapters.lock").exists()


def test_a_source_that_changed_under_its_lock_stops_the_pull(cli: Cli, at_desk: Path) -> None:
    assert cli("lock").exit_code == 0
    write_adapter(at_desk / "adapters" / "a1", seed=77)
    result = cli("pull")
    assert result.exit_code == 1
    assert "AD614" in result.stderr
    assert result.stdout == ""


def test_sigterm_during_a_pull_leaves_nothing_behind(
    at_desk: Path, web: WebServer, tmp_path: Path
) -> None:
    for path in write_adapter(at_desk / "tone").iterdir():
        web.files[f"/tone/{path.name}"] = path.read_bytes()
    with_tone(at_desk, f"{web.url}/tone")
    cache = tmp_path / "cache"
    assert terminal.run("lock", cwd=at_desk).status == 0
    web.silent = True
    asked = len(web.requests)
    env = terminal.environment({"ADAPTERDOCK_CACHE": str(cache)})
    process = subprocess.Popen(
        terminal.command("pull"), cwd=at_desk, env=env, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(web.requests) == asked and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "Stopped; nothing was left half-done" in said
    assert "Traceback" not in said
    assert [p for name in ("tmp", "holds") for p in cache.glob(f"{name}/*")] == []


def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "adapterdock", "--version"], env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
