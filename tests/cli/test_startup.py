"""Commands import only what they need; and the ways to start the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import adapterdock
import pytest
from support import terminal

HEAVY = ("torch", "transformers", "numpy", "huggingface_hub", "fsspec", "rich", "asyncio", "httpx")


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--help",), (*HEAVY, "yaml", "pydantic", "adapterdock.registry")),
        (("--version",), (*HEAVY, "yaml", "pydantic", "adapterdock.registry")),
        (("explain", "AD301"), (*HEAVY, "yaml", "adapterdock.registry")),
        (("validate",), HEAVY),
        (("lock",), HEAVY),
        (("show",), HEAVY),
    ],
)
def test_a_command_imports_only_what_it_needs(
    at_desk: Path, arguments: tuple[str, ...], forbidden: tuple[str, ...]
) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['adapterdock', *{arguments!r}]\n"
        "from adapterdock.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
        f"found = [n for n in {forbidden!r} if n in sys.modules]\n"
        "assert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=at_desk,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["adapterdock", "adapterdock.cli", "adapterdock.cli.main"])
def test_the_command_can_be_started_as_a_module(at_desk: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        cwd=at_desk,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"adapterdock {adapterdock.__version__}\n"


def test_without_arguments_there_is_help() -> None:
    result = terminal.run(cwd=Path.cwd())
    assert "Usage: adapterdock [OPTIONS] COMMAND" in result.out + result.err
