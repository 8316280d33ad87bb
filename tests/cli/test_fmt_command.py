"""`adapterdock fmt`: which files it writes, and its status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]

MESSY = "# ours\nbase:   {}\nversion: 1\n"
TIDY = "# ours\nversion: 1\nbase: {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    Path("adapters.yaml").write_text(MESSY)
    Path("sub/tidy.yaml").write_text(TIDY)
    Path("sub/other.yaml").write_text("b: 1\na: 2\n")
    return tmp_path


def test_files_are_formatted_once(cli: Cli, folder: Path) -> None:
    result = cli("fmt")
    assert (result.exit_code, result.stdout) == (0, "Formatted adapters.yaml\n")
    assert Path("adapters.yaml").read_text() == TIDY
    before = Path("adapters.yaml").stat()
    again = cli("fmt", ".")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "0 of 2 manifests changed; 1 other YAML file skipped" in again.stderr
    assert Path("adapters.yaml").stat().st_ino == before.st_ino


def test_check_writes_nothing_and_fails_where_something_would_change(
    cli: Cli, folder: Path
) -> None:
    result = cli("fmt", "--check", ".")
    assert (result.exit_code, result.stdout) == (1, "Would format adapters.yaml\n")
    assert Path("adapters.yaml").read_text() == MESSY
    assert cli("fmt", "--check", "sub").exit_code == 0
    data = json.loads(cli("fmt", "--check", "--json", ".").stdout)
    assert (data["schema"], data["changed"], data["exit_status"]) == (
        "adapterdock.fmt/1",
        ["adapters.yaml"],
        1,
    )


def test_one_invalid_file_does_not_stop_the_others(cli: Cli, folder: Path) -> None:
    Path("a.yaml").write_text("version: 1\nbase: [\n")
    result = cli("fmt", "a.yaml", "adapters.yaml")
    assert result.exit_code == 1
    assert "a.yaml:3:1: error AD104" in result.stderr
    assert Path("adapters.yaml").read_text() == TIDY


def test_nothing_to_format_is_wrong_usage(cli: Cli, folder: Path) -> None:
    Path("adapters.yaml").unlink()
    assert cli("fmt").exit_code == 2
    assert "AD920" in cli("fmt", "*.yml").stderr


def test_what_init_writes_is_formatted(cli: Cli, at_desk: Path) -> None:
    for options in ([], ["--model", "./base"]):
        Path("new.yaml").unlink(missing_ok=True)
        assert cli("init", "new.yaml", *options).exit_code == 0
        assert cli("fmt", "--check", "new.yaml").exit_code == 0
