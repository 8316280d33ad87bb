"""The help of every command: its examples parse, and it fits the terminal."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from adapterdock.cli.command import Group
from adapterdock.cli.help import help_text
from adapterdock.cli.main import app

ROOT: Any = typer.main.get_command(app)


def commands(command: Any = ROOT, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, command)]
    if isinstance(command, Group):
        for name in command.list_commands(None):
            found += commands(command.get_command(None, name), (*path, name))
    return found


def examples() -> list[str]:
    lines = [line for _, c in commands() for line in (c.help or "").split("\n")]
    return [line.strip() for line in lines if re.match(r" +(adapterdock |echo )", line)]


@pytest.mark.parametrize("line", examples())
def test_every_example_in_help_parses(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("adapterdock") + 1 :]
    if "|" in words:
        words = words[: words.index("|")]
    command, rest = ROOT, words
    while isinstance(command, Group):
        command, rest = command.get_command(None, rest[0]), rest[1:]
        assert command is not None, line
    command.make_context(command.name, rest)


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda x: " ".join(x) if isinstance(x, tuple) else ""
)
def test_every_command_and_option_is_documented(path: tuple[str, ...], command: Any) -> None:
    context = command.make_context("x", [], resilient_parsing=True)
    if not isinstance(command, Group):
        assert "Examples:" in command.help
        assert len(command.help.split("\n")[0]) < 64, "it is to fit beside the name in the list"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        assert record is None or record[1].strip(), parameter.name
    for width in (40, 80, 100):
        text = help_text(command, context, width)
        assert "Usage: x" in text
        for line in (command.help or "").split("\n"):
            example = line.strip().split("  ")[0]
            if line.startswith("  adapterdock "):
                assert example in text, "a command to copy is never broken"
