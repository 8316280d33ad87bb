"""How output looks: on terminals of any width, and in pipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli.console import clean
from adapterdock.cli.render import grouped, human_bytes
from adapterdock.manifests.findings.finding import Finding, Severity, Where
from hypothesis import given
from hypothesis import strategies as st
from support import terminal
from support.builders import lora_config, write_adapter
from support.desks import write_desk
from typer.testing import Result

Cli = Callable[..., Result]
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMANDS = (
    (),
    ("init",),
    ("validate",),
    ("explain",),
    ("fingerprint",),
    ("lock",),
    ("pull",),
    ("show",),
    ("run",),
    ("cache",),
    ("cache", "ls"),
    ("cache", "verify"),
    ("cache", "gc"),
)


def squeezed(text: str) -> str:
    """``text`` without its layout."""
    return re.sub(r"\s+", "", STYLE.sub("", text))


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize(
    "arguments", [("validate",), ("show",), ("show", "--resolved"), ("explain",), ("lock",)]
)
def test_output_is_complete_and_fits_the_terminal(
    tmp_path: Path, columns: int, arguments: tuple[str, ...]
) -> None:
    write_desk(tmp_path, adapters=3)
    plain = terminal.run(*arguments, cwd=tmp_path)
    (tmp_path / "adapters.lock").unlink(missing_ok=True)
    shown = terminal.run_on_terminal(*arguments, cwd=tmp_path, columns=columns)
    assert shown.status == plain.status == 0
    assert max(len(line) for line in re.split(r"[\r\n]", STYLE.sub("", shown.out))) <= columns
    words = squeezed(shown.out)
    for line in plain.lines[1:] if "\t" in plain.out else plain.lines:  # less the names of columns
        for word in re.split(r"[\t ]+", line):
            if "sha256:" not in word:  # digests are shortened on a terminal
                assert squeezed(word) in words


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_the_terminal(tmp_path: Path, columns: int, path: tuple[str, ...]) -> None:
    shown = terminal.run_on_terminal(*path, "--help", cwd=tmp_path, columns=columns)
    assert shown.status == 0
    # Commands to copy are never broken.
    prose = [line for line in shown.lines if "adapterdock" not in line]
    assert max(map(len, prose)) <= columns


def test_help_in_a_pipe_is_plain_and_keeps_brackets(tmp_path: Path) -> None:
    shown = terminal.run("run", "--help", cwd=tmp_path)
    assert "pip install 'adapterdock[torch]'" in shown.out
    assert "\x1b" not in shown.out
    assert max(map(len, shown.lines)) <= 80


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349]\d|10\d)(?:;\d+)*m")


@pytest.mark.parametrize(
    ("arguments", "columns"), [(("list",), 40), (("list",), 100), (("validate",), 40)]
)
def test_no_color_leaves_the_layout_and_dumb_terminals_have_it_too(
    at_desk: Path, arguments: tuple[str, ...], columns: int
) -> None:
    def shown(**env: str) -> str:
        ran = terminal.run_on_terminal(*arguments, cwd=at_desk, columns=columns, env=env)
        return ran.out

    coloured, colourless, dumb = shown(), shown(NO_COLOR="1"), shown(TERM="dumb")
    plain = STYLE.sub("", coloured)
    assert (STYLE.sub("", colourless), dumb) == (plain, plain)
    assert not COLOUR.search(colourless)
    assert "\t" not in plain and max(map(len, plain.splitlines())) <= columns
    if arguments == ("list",):
        in_pipe = terminal.run(*arguments, cwd=at_desk, env={"NO_COLOR": "1"})
        assert in_pipe.lines[0].startswith("adapter\t")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_progress_has_no_colours_and_does_not_move_on_a_dumb_terminal(
    at_desk: Path, env: dict[str, str]
) -> None:
    ran = terminal.run_on_terminal("lock", cwd=at_desk, env=env)
    assert ran.status == 0
    assert not COLOUR.search(ran.out)
    assert ("\x1b" in ran.out) == ("NO_COLOR" in env)


def test_a_terminal_gets_colours_and_a_pipe_tabs(at_desk: Path) -> None:
    assert STYLE.search(terminal.run_on_terminal("validate", cwd=at_desk).out)
    shown = terminal.run("show", cwd=at_desk)
    assert "\x1b" not in shown.out
    assert "a0\tLORA\t4\t" in shown.out


def test_results_go_to_stdout_and_progress_to_stderr(at_desk: Path) -> None:
    shown = terminal.run("fingerprint", cwd=at_desk)
    assert shown.lines[0] == "fingerprint:"
    assert shown.err == "Reading ./base ...\n"


@given(st.text())
def test_control_characters_are_escaped(text: str) -> None:
    cleaned = clean(text)
    assert all(c == "\n" or c.isprintable() for c in cleaned)
    assert cleaned == text or not text.isprintable()


def test_an_artefact_cannot_control_the_terminal(at_desk: Path) -> None:
    config = lora_config(base_model_name_or_path="acme/\x1b]0;owned\x07\x1b[2J\u202e")
    write_adapter(at_desk / "adapters" / "a0", config, seed=0)
    for shown in (
        terminal.run("validate", cwd=at_desk),
        terminal.run_on_terminal("validate", cwd=at_desk),
    ):
        assert "owned" in squeezed(shown.out)
        assert "\x1b]" not in shown.out and "\x1b[2J" not in shown.out
        assert "\x07" not in shown.out and "\u202e" not in shown.out


def test_a_manifest_error_shows_its_line_with_a_caret(cli: Cli, at_desk: Path) -> None:
    (at_desk / "adapters.yaml").write_text("version: 1\nbase:\n  modle: ./base\n")
    lines = cli("validate").stdout.splitlines()
    assert lines[0] == "adapters.yaml:3:3: error AD120 unknown-key: Unknown key 'modle' in base"
    assert lines[1:3] == ["  3 |   modle: ./base", "    |   ^"]
    assert "  do: Did you mean 'model'?" in lines


def test_a_secret_in_the_manifest_is_never_printed(at_desk: Path) -> None:
    token = "hf_" + "a1B2c3D4e5" * 3 + "f6G7"
    text = f"version: 1\nbase: {{modle: {token}}}\nadapters: {{}}\n"
    (at_desk / "adapters.yaml").write_text(text)
    for arguments in (("validate",), ("validate", "--json"), ("lock",), ("lock", "--json")):
        shown = terminal.run(*arguments, cwd=at_desk)
        assert shown.status == 1
        assert token not in shown.out + shown.err


def place(adapter: str, message: str, severity: Severity = Severity.ERROR) -> Finding:
    return Finding("AD300", "made-up", severity, message, Where("f", ("adapters", adapter)))


def test_findings_that_adapters_share_are_grouped() -> None:
    findings = [
        place("a", "a is bad"),
        place("b", "another thing of b"),
        place("b.c", "b.c is bad"),
        place("b", "b is bad"),
        place("a", "b is bad"),
        place("b", "b is bad", Severity.WARNING),
    ]
    groups = [[f.where.path[1] for f in group] for group in grouped(findings)]
    assert groups == [["a", "b.c", "b"], ["b"], ["a"], ["b"]]


def test_all_places_of_errors_and_a_few_of_warnings_are_listed(tmp_path: Path) -> None:
    write_desk(tmp_path, adapters=20)
    warnings = terminal.run("validate", cwd=tmp_path)
    assert warnings.out.count("adapters.yaml:") < 10
    assert "and 15 more" in warnings.out
    (tmp_path / "base" / "config.json").unlink()
    write_desk(tmp_path / "other", adapters=0)
    for number in range(20):
        (tmp_path / "adapters" / f"a{number}" / "adapter_config.json").write_text("{")
    errors = terminal.run("validate", "--model", "./other/base", cwd=tmp_path)
    assert errors.status == 1
    assert all(f"adapters.a{number}.source" in errors.out for number in range(20))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (2 * 10**12, "2000.0 GB")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert human_bytes(size) == text
