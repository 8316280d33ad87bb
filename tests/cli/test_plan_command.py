"""`adapterdock plan` and `adapterdock list`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def locked(cli: Cli, at_desk: Path) -> Path:
    assert cli("lock").exit_code == 0
    return at_desk / "adapters.yaml"


def test_a_current_lock_needs_no_changes(cli: Cli, locked: Path) -> None:
    result = cli("plan", "--exit-code")
    assert (result.exit_code, result.stdout) == (0, "No changes: adapters.lock is current\n")


def test_changes_are_shown_and_give_their_status_only_where_it_is_wanted(
    cli: Cli, locked: Path
) -> None:
    locked.write_text(locked.read_text().replace("./adapters/a1", "./adapters/a0"))
    result = cli("plan")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "~ adapter a1  source ./adapters/a1 -> ./adapters/a0",
        "Plan: 0 to add, 1 to change, 0 to remove, 1 adapter unchanged",
    ]
    assert "Until then `load` refuses the lock" in result.stderr
    assert cli("plan", "--exit-code").exit_code == 2
    data = json.loads(cli("plan", "--json").stdout)
    assert (data["schema"], data["changes"], data["kept"]) == (
        "adapterdock.plan/1",
        True,
        ["a0"],
    )
    assert data["steps"][0]["fields"][0]["now"] == "./adapters/a0"


def test_an_error_is_never_taken_for_changes(cli: Cli, locked: Path) -> None:
    assert cli("plan", "other.yaml").exit_code == 2
    assert cli("plan", "other.yaml", "--exit-code").exit_code == 1
    locked.write_text("version: 1\n  x")
    assert cli("plan", "--exit-code").exit_code == 1


def test_a_lock_that_lacks_an_entry_is_no_empty_plan(cli: Cli, locked: Path) -> None:
    lock = locked.with_suffix(".lock")
    lock.write_text(lock.read_text().replace("\n  a1:\n", "\n  a9:\n"))
    result = cli("plan", "--exit-code")
    assert (result.exit_code, "AD506" in result.stderr) == (1, True)


def test_a_list_says_what_the_manifest_and_the_lock_know(cli: Cli, locked: Path) -> None:
    text = locked.read_text().replace("./adapters/a1", "./adapters/a0")
    locked.write_text(text + "compositions:\n  both: {of: {a0: 1, a1: {'*.up_proj': 0.5}}}\n")
    result = cli("list")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["adapter", "active", "method", "rank", "lock", "source"],
        ["a0", "", "LORA", "4", "locked", "./adapters/a0"],
        ["a1", "", "", "", "changed", "./adapters/a0"],
        [""],
        ["composition", "active", "combine", "of"],
        ["both", "", "sum", "1 a0 + {'*.up_proj': 0.5} a1"],
    ]
    data = json.loads(cli("list", "--json").stdout)
    assert (data["schema"], data["locked"], data["current"]) == ("adapterdock.list/1", True, False)
    assert [(row["name"], row["rank"], row["state"]) for row in data["adapters"]] == [
        ("a0", 4, "locked"),
        ("a1", None, "changed"),
    ]
    assert data["compositions"][0]["of"] == {"a0": 1, "a1": {"*.up_proj": 0.5}}


def test_a_list_needs_no_lock(cli: Cli, at_desk: Path) -> None:
    result = cli("list")
    assert result.exit_code == 0
    assert [line.split("\t")[4] for line in result.stdout.splitlines()[1:]] == ["not locked"] * 2
