"""`adapterdock merge`, on a tiny random Llama."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from support import terminal
from support.desks import write_desk
from typer.testing import Result

Cli = Callable[..., Result]
ODD = "  odd: {combine: ties, of: {a0: 1.0, a1: 1.0}, density: 0.5}\n"
GLOBS = "  part: {of: {a0: {'*.layers.0.*': 0.5}}}\n"


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest = write_desk(tmp_path)
    with manifest.open("a") as stream:
        stream.write(
            f"compositions:\n  both: {{of: {{a0: 1.0, a1: -2.0}}}}\n{ODD}{GLOBS}active: a0\n"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merged_weights(folder: Path) -> dict[str, float]:
    """The adapters and weights that the header records."""
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        data = json.loads(file.metadata()["adapterdock.merged"])
    return {name: adapter["weight"] for name, adapter in data["adapters"].items()}


def test_merge_writes_the_active_or_named_adapters(cli: Cli, at: Path) -> None:
    result = cli("merge", "--out", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("out: a0 at 1 merged; ")
    assert merged_weights(at / "out") == {"a0": 1.0}
    assert {"config.json", "tokenizer.json"} <= {p.name for p in (at / "out").iterdir()}
    result = cli("merge", "adapters.yaml", "-c", "both", "-o", "out", "--safe")
    assert result.exit_code == 0, result.output
    assert "a0 at 1, a1 at -2 merged" in result.stdout
    assert merged_weights(at / "out") == {"a0": 1.0, "a1": -2.0}
    result = cli("merge", "-c", "odd", "-o", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("out: odd at 1 merged; ")
    result = cli("merge", "-c", "part", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "a0 at {'*.layers.0.*': 0.5} merged" in result.stdout


def test_the_merged_folder_can_be_used_as_a_base(cli: Cli, at: Path) -> None:
    assert cli("merge", "-c", "a0", "-o", "merged").exit_code == 0
    merged = (at / "adapters.yaml").read_text().replace(ODD, "")
    (at / "adapters.yaml").write_text(merged)
    (at / "next.yaml").write_text(merged.replace("./base ", "./merged "))
    result = cli("run", "next.yaml", "-p", "w5 w9", "-a", "__base__", "--max-new-tokens", 4)
    assert result.exit_code == 0, result.output
    live = cli("run", "-p", "w5 w9", "-a", "a0", "--max-new-tokens", 4)
    assert result.stdout == live.stdout


def test_dtype_and_size_of_the_files_can_be_chosen(cli: Cli, at: Path) -> None:
    result = cli("merge", "-o", "out", "--dtype", "float16", "--max-shard-size", "10KB")
    assert result.exit_code == 0, result.output
    files = sorted((at / "out").glob("model-*.safetensors"))
    assert len(files) > 1
    with safe_open(files[0], "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (("-c", "bth"), 2, "AD730"),
        (("--max-shard-size", "lots"), 2, "AD906"),
        (("--max-shard-size", "0B"), 2, "AD906"),
        (("--dtype", "int8"), 2, ""),
        (("--frozen",), 1, "AD5"),
        (("-o", "."), 2, "AD930"),
        (("-o", "adapters.yaml"), 2, "AD930"),
        (("-o", "/proc/merged"), 2, "AD909"),
    ],
)
def test_an_error_is_reported_and_writes_nothing(
    cli: Cli, at: Path, options: tuple[str, ...], status: int, code: str
) -> None:
    before = sorted(p.relative_to(at) for p in at.rglob("*"))
    result = cli("merge", "-o", "out", *options)
    assert (result.exit_code, code in result.stderr) == (status, True), result.output
    assert "Traceback" not in result.output
    assert sorted(p.relative_to(at) for p in at.rglob("*")) == before


def test_without_torch_the_error_says_what_to_install(at: Path) -> None:
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(['torch', 'transformers']))\n"
        "sys.argv = ['adapterdock', 'merge', '-o', 'out']\n"
        "from adapterdock.cli.main import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=at,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "AD903" in done.stderr and not (at / "out").exists()


def test_ctrl_c_leaves_no_partial_folder(at: Path) -> None:
    shown = terminal.run_on_terminal("merge", "-o", "out", cwd=at, interrupt_when="Merging into")
    assert shown.status in (0, 130), shown.out
    names = {p.name for p in at.iterdir()}
    assert names - {"out"} == {"base", "adapters", "adapters.yaml"}
    assert ("out" in names) == (shown.status == 0)
