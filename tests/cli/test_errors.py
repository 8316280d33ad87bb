"""Errors: findings on stderr, the right exit status, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli import command
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    FitError,
    OfflineError,
    UsageError,
)
from adapterdock.manifests.findings.finding import Finding, Severity
from support import terminal
from typer.testing import Result

Cli = Callable[..., Result]


def finding(severity: Severity = Severity.ERROR) -> Finding:
    return Finding("AD999", "made-up", severity, "something")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FitError(finding()), 1),
        (UsageError(finding()), 2),
        (FitError(finding(Severity.UNCHECKED)), 3),
        (FitError(finding(), finding(Severity.UNCHECKED)), 1),
        (OfflineError(finding()), 3),
    ],
)
def test_an_error_has_the_exit_status_of_its_kind(error: AdapterdockError, status: int) -> None:
    assert command.status_of(error) == status


@pytest.mark.parametrize("name", ["validate", "lock", "pull", "show", "run", "fingerprint"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nope.yaml", "No such manifest"),
        ("adaptrs.yaml", "Did you mean 'adapters.yaml'?"),
        (".", "This is a folder"),
    ],
)
def test_a_missing_manifest_is_wrong_usage_with_a_hint(
    cli: Cli, at_desk: Path, name: str, given: str, said: str
) -> None:
    if name in ("fingerprint", "lock", "validate") and given == ".":
        return  # there a folder is a source, or may have manifests
    result = cli(name, given)
    assert result.exit_code == 2, result.output
    assert "AD901" in result.stderr and said in result.stderr
    assert result.stdout == ""


def test_a_manifest_is_not_read_from_standard_input(cli: Cli) -> None:
    result = cli("validate", "-", given="version: 1\n")
    assert result.exit_code == 2
    assert "standard input" in result.stderr


@pytest.mark.parametrize("path", ["adapters.yaml/x.yaml", "x" * 5000 + ".yaml"])
def test_an_impossible_path_is_wrong_usage(cli: Cli, at_desk: Path, path: str) -> None:
    assert cli("validate", path).exit_code == 2


def test_an_unreadable_manifest_is_a_finding(at_desk: Path) -> None:
    if os.geteuid() == 0:  # root may read anything, so read something that nobody can
        result = terminal.run("validate", "/proc/self/mem", cwd=at_desk)
    else:
        (at_desk / "adapters.yaml").chmod(0)
        result = terminal.run("validate", cwd=at_desk)
    assert result.status == 1
    assert "AD101" in result.out
    assert "Traceback" not in result.err


def test_an_unknown_option_is_wrong_usage_with_a_suggestion(cli: Cli) -> None:
    result = cli("validate", "--frzen")
    assert result.exit_code == 2
    assert "--frozen" in result.stderr


def test_an_unknown_command_is_wrong_usage_with_a_suggestion(cli: Cli) -> None:
    result = cli("vlidate")
    assert result.exit_code == 2
    assert "'validate'" in result.stderr


@pytest.mark.parametrize("text", ["AD301x", "AD363", "AD101", "AD710"])
def test_only_codes_of_unchecked_findings_can_be_accepted(
    cli: Cli, at_desk: Path, text: str
) -> None:
    result = cli("validate", "--accept", text)
    assert result.exit_code == 2
    assert "AD513" in result.stderr


def test_a_bug_is_one_short_message_and_status_70(
    cli: Cli, at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.registry.validate.validate", lambda *_, **__: 1 // 0)
    result = cli("validate")
    assert result.exit_code == 70
    assert "AD990" in result.stderr and "ADAPTERDOCK_DEBUG" in result.stderr
    assert "Traceback" not in result.output
    as_json = cli("validate", "--json")
    assert as_json.exit_code == 70
    assert json.loads(as_json.stdout)["findings"][0]["code"] == "AD990"
    assert "Traceback" in cli("--debug", "validate").stderr


def test_debug_shows_the_traceback_of_an_error(
    cli: Cli, at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_DEBUG", "1")
    result = cli("lock", "nope.yaml")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", ["lock", "show", "fingerprint"])
def test_with_json_an_error_is_json(cli: Cli, at_desk: Path, name: str) -> None:
    (at_desk / "adapters.yaml").write_text("version: 1\nbase: {modle: x}\n")
    result = cli(name, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["schema"] == "adapterdock.error/1"
    assert data["exit_status"] == 1
    assert data["findings"][0]["where"] == {
        "file": "adapters.yaml",
        "path": "base.modle",
        "line": 2,
        "column": 8,
    }


@pytest.mark.parametrize("arguments", [("explain",), ("--help",), ("validate",)])
def test_a_closed_pipe_is_not_an_error(at_desk: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # nobody will ever read
    done = subprocess.run(
        terminal.command(*arguments),
        cwd=at_desk,
        env=terminal.environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert done.stderr == ""
    # A command's own status is SIGPIPE's; help is printed by typer, which says 1.
    assert done.returncode == (1 if "--help" in arguments else 141)


def test_a_full_disk_behind_stdout_is_reported(at_desk: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            terminal.command("explain", "AD101"),
            cwd=at_desk,
            env=terminal.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_are_ignored(at_desk: Path) -> None:
    line = " ".join(terminal.command("validate"))
    done = subprocess.run(
        ["bash", "-c", f"{line} >&- 2>&-"], cwd=at_desk, env=terminal.environment(), timeout=60
    )
    assert done.returncode == 0


def test_characters_that_the_encoding_lacks_are_escaped(at_desk: Path) -> None:
    (at_desk / "b\u00e4d.yaml").write_text("version: 1\nbase: {modle: x}\n")
    result = terminal.run(
        "validate", "b\u00e4d.yaml", cwd=at_desk, env={"PYTHONIOENCODING": "ascii"}
    )
    assert result.status == 1
    assert "b\\xe4d.yaml:2:8" in result.out


def test_accepted_findings_are_marked_and_pass(cli: Cli, at_desk: Path) -> None:
    text = (at_desk / "adapters.yaml").read_text()
    (at_desk / "adapters.yaml").write_text(
        text.replace("base:\n  model: ./base   # kept", "base: {}")
    )
    assert cli("validate").exit_code == 3
    result = cli("validate", "--accept", "base-not-declared")
    assert result.exit_code == 0, result.output
    assert "unchecked AD340 base-not-declared (accepted)" in result.stdout
    assert "2 unchecked findings accepted" in result.stdout


@pytest.mark.parametrize("name", ["validate", "lock", "pull", "show", "run"])
@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--dtype", "bfloat61", "AD123"),
        ("--model", "s3:bucket/base", "AD916"),
        ("--policy", "gone.yaml", "AD101"),
        ("--policy", ".", "AD101"),
    ],
)
def test_an_invalid_option_value_is_wrong_usage(
    cli: Cli, at_desk: Path, name: str, option: str, value: str, code: str
) -> None:
    result = cli(name, option, value)
    assert result.exit_code == 2
    assert code in result.stderr
    assert option in result.stderr
    assert "manifest" not in result.stdout


def test_a_dangling_link_is_not_suggested_as_its_own_correction(cli: Cli, at_desk: Path) -> None:
    (at_desk / "team.yaml").symlink_to("gone.yaml")
    result = cli("validate", "team.yaml")
    assert result.exit_code == 2
    assert "The link's target does not exist" in result.stderr
    assert "Did you mean 'team.yaml'" not in result.stderr
