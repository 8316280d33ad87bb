"""-q, -v and colours: how much is said, and in which form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli.console import Printer
from support.hub_server import HubServer
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
@pytest.mark.parametrize("after", [True, False])
def test_quiet_says_only_results_and_errors(
    cli: Cli, at_desk: Path, flag: str, after: bool
) -> None:
    def call(*words: str) -> Result:
        return cli(*words, flag) if after else cli(flag, *words)

    locked = call("lock")
    assert (locked.exit_code, locked.output) == (0, "")
    assert (at_desk / "adapters.lock").is_file()
    assert call("validate").output == ""
    listed = call("list")
    assert (listed.stdout.count("\n"), listed.stderr) == (3, "")
    wrong = call("validate", "none.yaml")
    assert wrong.exit_code == 2 and "AD901" in wrong.stderr
    assert "2 adapters" in cli("list").stderr, "it holds for one command"


def test_quiet_shows_what_is_wrong_and_no_warnings(cli: Cli, at_desk: Path) -> None:
    path = at_desk / "adapters.yaml"
    path.write_text(path.read_text().replace("./adapters/a1", "./adapters/a0"))
    assert "AD182" in cli("validate").output
    assert cli("validate", "-q").output == ""
    path.write_text(path.read_text().replace("./adapters/a0", "./none", 1))
    result = cli("validate", "-q")
    assert result.exit_code == 1
    assert "AD201" in result.stdout and "AD182" not in result.output
    assert "Learn more" not in result.output


def test_verbose_says_what_is_opened_and_fetched(cli: Cli, at_desk: Path, hub: HubServer) -> None:
    folder = at_desk / "adapters" / "a0"
    hub.commit("org/a", {file.name: file.read_bytes() for file in folder.iterdir()})
    path = at_desk / "adapters.yaml"
    path.write_text(path.read_text().replace("./adapters/a0", "hf://org/a"))
    usual = cli("show")
    assert "Opening" not in usual.stderr
    said = cli("lock", "-v").stderr
    assert "Opening hf://org/a" in said
    assert "Fetched hf://org/a/adapter_model.safetensors (" in said
    assert "Opening" not in cli("lock").stderr, "it holds for one command"
    assert not logging.getLogger("adapterdock").handlers


@pytest.mark.parametrize("token", ["hf_reader1234567890", "hf_expired1234567890"])
def test_no_token_is_in_what_is_said_with_all_details(
    cli: Cli, at_desk: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    hub.private.add("acme/a")
    hub.tokens.add("hf_reader1234567890")
    folder = at_desk / "adapters" / "a0"
    hub.commit("acme/a", {file.name: file.read_bytes() for file in folder.iterdir()})
    path = at_desk / "adapters.yaml"
    path.write_text(path.read_text().replace("./adapters/a0", "hf://acme/a"))
    monkeypatch.setenv("HF_TOKEN", token)
    result = cli("-vv", "--debug", "lock")
    assert "Opening hf://acme/a" in result.stderr
    assert (result.exit_code == 0) == (token == "hf_reader1234567890"), result.output
    assert token not in result.output


def test_quiet_and_verbose_do_not_go_together(cli: Cli, at_desk: Path) -> None:
    for words in (("-q", "-v", "list"), ("-q", "list", "-v"), ("list", "-qv")):
        result = cli(*words)
        assert result.exit_code == 2, words
        assert "cannot be combined" in result.stderr


@pytest.mark.parametrize(
    ("variables", "styled"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": ""}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_in_a_pipe_only_where_they_are_forced(
    cli: Cli,
    at_desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    styled: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    text = cli("validate").stdout
    fits = "fits (2 adapters, 2 warnings)"
    fits = f"\x1b[32m{fits}\x1b[0m" if styled else fits
    assert text.endswith(f"adapters.yaml: {fits}\n")
    assert ("\x1b" in text) == styled
    assert "\x1b" not in cli("list").stdout, "a table in a pipe is for programs"
    assert "\x1b" not in cli("validate", "--json").stdout


def test_forced_colours_do_not_let_a_name_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Printer("stdout").line(("a\x1b[2Jb", "bold"), "\x07")
    assert capsys.readouterr().out == "\x1b[1ma\\x1b[2Jb\x1b[0m\\x07\n"
