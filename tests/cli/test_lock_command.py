"""`adapterdock lock`: what it prints, what it writes, and which options go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import lora_config, write_adapter
from support.hub_server import HubServer
from typer.testing import Result

Cli = Callable[..., Result]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_first_lock_lists_what_it_pins(cli: Cli, at_desk: Path) -> None:
    result = cli("lock")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "method", "rank", "digest", "source"]
    assert [row[0] for row in rows[1:]] == ["base", "a0", "a1"]
    assert rows[2][3].startswith("sha256:") and len(rows[2][3]) == 71
    assert "wrote adapters.lock: 2 adapters and the base pinned" in result.stderr
    assert (at_desk / "adapters.lock").is_file()


def test_a_lock_that_is_current_is_not_written_again(cli: Cli, at_desk: Path) -> None:
    cli("lock")
    before = (at_desk / "adapters.lock").read_bytes()
    assert cli("lock", "--diff").stdout == ""
    moved = hub.commit("acme/tone", folder_bytes(write_adapter(at_desk / "tone", seed=5)))
    assert cli("lock").stdout == "", "a pin stays where it is"
    result = cli("lock", "--diff")
    assert result.exit_code == 0
    assert f" -> {moved}" in result.stdout
    assert "nothing was written" in result.stderr
    assert (at_desk / "adapters.lock").read_bytes() == before
    assert json.loads(cli("lock", "--diff", "--json").stdout)["wrote"] is False
    assert cli("lock", "--upgrade", "tone").exit_code == 0
    assert moved in (at_desk / "adapters.lock").read_text()


def test_a_lock_that_cannot_be_written_is_a_finding(cli: Cli, at_desk: Path) -> None:
    (at_desk / "adapters.lock").mkdir()
    result = cli("lock")
    assert result.exit_code == 1
    assert "AD50" in result.stderr
