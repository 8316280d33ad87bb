"""`adapterdock export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def locked(at_desk: Path, cli: Cli) -> Path:
    assert cli("lock").exit_code == 0
    return at_desk


def test_it_prints_what_was_written_and_the_line_for_vllm(locked: Path, cli: Cli) -> None:
    done = cli("export", "--out", "served")
    assert done.exit_code == 0, done.stderr
    names = sorted(path.name for path in Path("served").iterdir() if path.is_dir())
    assert names
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("vLLM: ")]
    assert "--enable-lora --max-lora-rank 8 --lora-modules" in line
    for name in names:
        assert f"served/{name}: written" in done.stdout
        assert f"{name}=served/{name}" in line
    again = cli("export", "--out", "served", "--only", names[0])
    assert f"served/{names[0]}: unchanged" in again.stdout
    assert f"holds {len(names)} adapters" in again.stdout


def test_an_empty_folder_of_a_variable_that_is_not_set_is_refused(
    locked: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("bundle", "adapters.yaml", "../out.oci.tar").exit_code == 0
    before = sorted(locked.rglob("*"))
    for command in (
        ("export", "--out", ""),
        ("export", "--out", " "),
        ("merge", "--out", ""),
        ("bundle", "adapters.yaml", ""),
        ("unpack", "../out.oci.tar", ""),
    ):
        done = cli(*command)
        assert (done.exit_code, "The path to write is empty" in done.stderr) == (2, True), command
    assert sorted(locked.rglob("*")) == before
    # this folder is a folder where it is named
    for name, command in (
        ("out", ("export", str(locked / "adapters.yaml"), "--out", ".")),
        ("here", ("unpack", "../out.oci.tar", ".")),
    ):
        folder = locked.parent / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        done = cli(*command)
        assert done.exit_code == 0, done.stderr


def test_its_result_as_data(locked: Path, cli: Cli) -> None:
    data = json.loads(cli("export", "--out", "served", "--json").stdout)
    assert data["schema"] == "adapterdock.export-result/1"
    assert data["removed"] == []
    record = json.loads(Path("served/adapterdock-export.json").read_text())
    assert data["record"]["adapters"].keys() == record["adapters"].keys() == {*data["written"]}


def test_lines_for_llama_cpp_and_mlx(locked: Path, cli: Cli) -> None:
    done = cli("export", "--out", "gguf", "--format", "gguf")
    assert done.exit_code == 0, done.stderr
    assert "llama-server -m BASE.gguf --lora gguf/" in done.stdout
    done = cli("export", "--out", "mlx", "--format", "mlx")
    assert "mlx_lm.generate --model" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("nothing.yaml", "--out", "served"), 2, "AD901"),
        (("--out", "served", "--only", "nobody"), 2, "AD730"),
        (("--out", "served", "--only", "__base__"), 2, "AD730"),
        (("--out", "adapters.yaml"), 2, "AD986"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: tuple[str, ...], status: int, code: str, locked: Path, cli: Cli
) -> None:
    done = cli("export", *arguments)
    assert done.exit_code == status, done.stderr
    assert code in done.stderr
    assert not Path("served").exists()


def test_without_a_lock_nothing_is_written(at_desk: Path, cli: Cli) -> None:
    done = cli("export", "--out", "served")
    assert done.exit_code == 1
    assert "AD504" in done.stderr
    assert not Path("served").exists()
