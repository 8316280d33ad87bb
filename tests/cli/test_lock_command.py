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


def test_a_first_lock_lists_its_pins(cli: Cli, at_desk: Path) -> None:
    result = cli("lock")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "method", "rank", "digest", "source"]
    assert [row[0] for row in rows[1:]] == ["base", "a0", "a1"]
    assert rows[2][3].startswith("sha256:") and len(rows[2][3]) == 71
    assert "Wrote adapters.lock: 2 adapters and the base pinned" in result.stderr
    assert (at_desk / "adapters.lock").is_file()


def test_a_current_lock_is_not_rewritten(cli: Cli, at_desk: Path) -> None:
    cli("lock")
    before = (at_desk / "adapters.lock").stat()
    result = cli("lock")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "adapters.lock is current" in result.stderr
    after = (at_desk / "adapters.lock").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_check_distinguishes_missing_current_and_stale_locks(cli: Cli, at_desk: Path) -> None:
    missing = cli("lock", "--check")
    assert (missing.exit_code, "AD504" in missing.stdout) == (1, True)
    cli("lock")
    assert cli("lock", "--check").exit_code == 0
    text = (at_desk / "adapters.yaml").read_text()
    (at_desk / "adapters.yaml").write_text(text.replace("./adapters/a1", "./adapters/a0"))
    stale = cli("lock", "--check")
    assert (stale.exit_code, "AD505" in stale.stdout) == (1, True)
    assert json.loads(cli("lock", "--check", "--json").stdout)["schema"] == "adapterdock.report/1"


@pytest.mark.parametrize(
    "options",
    [
        ("--check", "--diff"),
        ("--check", "--upgrade", "a0"),
        ("--check", "--upgrade-all"),
        ("--check", "--accept", "AD364"),
        ("--upgrade-all", "--upgrade", "a0"),
    ],
)
def test_conflicting_options_are_refused(cli: Cli, at_desk: Path, options: tuple[str, ...]) -> None:
    result = cli("lock", *options)
    assert result.exit_code == 2
    assert "AD914" in result.stderr


def test_check_uses_the_base_of_model(cli: Cli, at_desk: Path) -> None:
    cli("lock")
    result = cli("lock", "--check", "--model", "./elsewhere")
    assert (result.exit_code, "AD505" in result.stdout) == (1, True)


def test_an_unknown_name_cannot_be_upgraded(cli: Cli, at_desk: Path) -> None:
    result = cli("lock", "--upgrade", "a9")
    assert result.exit_code == 2
    assert "AD510" in result.stderr


def test_changes_are_printed_by_entry(cli: Cli, at_desk: Path) -> None:
    manifest = at_desk / "adapters.yaml"
    with manifest.open("a") as stream:
        stream.write("  a1.v2:\n    source: ./adapters/a1\n  gone:\n    source: ./adapters/a0\n")
    assert cli("lock").exit_code == 0
    text = manifest.read_text().replace("  gone:", "  new:")
    manifest.write_text(text)
    write_adapter(at_desk / "adapters" / "a1", lora_config(lora_alpha=16), seed=9)
    result = cli("lock", "--upgrade", "a1", "--upgrade", "a1.v2", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["schema"] == "adapterdock.lock/1" and data["wrote"] is True
    changed = {change["path"] for change in data["changes"]}
    assert {"adapters.a1.digest", "adapters.a1.v2.digest"} <= changed
    write_adapter(at_desk / "adapters" / "a1", lora_config(), seed=1)
    manifest.write_text(text.replace("  new:", "  newer:"))
    result = cli("lock", "--upgrade-all")
    lines = result.stdout.splitlines()
    assert "~ adapters.a1" in lines and "~ adapters.a1.v2" in lines
    assert any(line.startswith("    ~ digest: sha256:") and " -> sha256:" in line for line in lines)
    assert any(line.startswith("+ adapters.newer: ") for line in lines)
    assert any(line.startswith("- adapters.new: ") for line in lines)
    assert not any("inputs" in line for line in lines)


def test_diff_shows_changes_and_writes_nothing(cli: Cli, at_desk: Path, hub: HubServer) -> None:
    tone = folder_bytes(write_adapter(at_desk / "tone"))
    hub.commit("acme/tone", tone)
    text = (at_desk / "adapters.yaml").read_text() + "  tone:\n    source: hf://acme/tone\n"
    (at_desk / "adapters.yaml").write_text(text)
    assert cli("lock").exit_code == 0
    before = (at_desk / "adapters.lock").read_bytes()
    assert cli("lock", "--diff").stdout == ""
    moved = hub.commit("acme/tone", folder_bytes(write_adapter(at_desk / "tone", seed=5)))
    assert cli("lock").stdout == "", "a pin stays where it is"
    result = cli("lock", "--diff")
    assert result.exit_code == 0
    assert f" -> {moved}" in result.stdout
    assert "Nothing was written" in result.stderr
    assert (at_desk / "adapters.lock").read_bytes() == before
    assert json.loads(cli("lock", "--diff", "--json").stdout)["wrote"] is False
    assert cli("lock", "--upgrade", "tone").exit_code == 0
    assert moved in (at_desk / "adapters.lock").read_text()


def test_a_lock_that_cannot_be_written_is_a_finding(cli: Cli, at_desk: Path) -> None:
    (at_desk / "adapters.lock").mkdir()
    result = cli("lock")
    assert result.exit_code == 1
    assert "AD50" in result.stderr
