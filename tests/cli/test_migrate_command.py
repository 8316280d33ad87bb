"""`adapterdock migrate`: a report of lines, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]
SCRIPT = """\
from peft import PeftModel

model = PeftModel.from_pretrained(base, "./tone")
model.set_adapter("default")
model.unload()


def other(thing):
    return thing.get_layer_status()
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "use.py"
    path.write_text(SCRIPT)
    return path


def test_each_line_that_changes_is_shown_with_what_to_write(script: Path, cli: Cli) -> None:
    done = cli("migrate", "use.py")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "use.py:1:18 from peft import PeftModel",
        "  -> from adapterdock import AdaptedModel",
        "use.py:3:9 PeftModel.from_pretrained(base, './tone')",
        "  -> AdaptedModel.from_pretrained(...)",
        "use.py:5:1 model.unload()",
        "  -> model.detach()",
        "     the base as before the first adapter",
        "use.py:9:12 thing.get_layer_status()",
        "  -> thing.adapters",
        "     cannot tell whether this is a model with adapters; facts of each adapter by name",
    ]
    assert "4 places to change, 1 of them uncertain; 1 stay" in done.stderr
    assert script.read_text() == SCRIPT


def test_json_has_the_same(script: Path, cli: Cli) -> None:
    done = cli("migrate", ".", "--json")
    data = json.loads(done.stdout)
    assert data["schema"] == "adapterdock.migrate/1"
    assert (data["scripts"], data["unchanged"], data["findings"]) == (1, 1, [])
    assert [(one["line"], one["column"], one["certain"]) for one in data["changes"]] == [
        (1, 18, True),
        (3, 9, True),
        (5, 1, True),
        (9, 12, False),
    ]


def test_nothing_found_is_said(script: Path, cli: Cli) -> None:
    script.write_text("print('hello')\n")
    done = cli("migrate", "use.py")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no call of PEFT's or transformers' adapters found" in done.stderr


def test_a_script_that_is_not_python_is_a_finding_with_its_line(script: Path, cli: Cli) -> None:
    (script.parent / "old.py").write_text("x = 1\nprint 'x'\n")
    done = cli("migrate", ".")
    assert done.exit_code == 1
    assert "old.py:2:1: error AD933 script-unreadable" in done.stderr
    assert "2 scripts, 1 of them unreadable: 4 places" in done.stderr
    assert "use.py:5:1 model.unload()" in done.stdout


@pytest.mark.parametrize("wrong", ["none.py", "notes.txt", "empty"])
def test_a_place_without_scripts_is_wrong_usage(script: Path, cli: Cli, wrong: str) -> None:
    (script.parent / "empty").mkdir()
    (script.parent / "notes.txt").write_text("hello")
    done = cli("migrate", wrong)
    assert done.exit_code == 2
    assert "AD934" in done.stderr and wrong in done.stderr


def test_an_adapters_folder_in_place_of_a_manifest_gets_a_manifest_of_three_lines(
    tmp_path: Path, cli: Cli
) -> None:
    folder = tmp_path / "tone"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base"}')
    for command in ("validate", "lock", "show"):
        done = cli(command, str(folder))
        assert done.exit_code in (1, 2)
        assert "AD931" in done.stderr and "base: {model: hf://acme/base}" in done.stderr
    (folder / "adapters.yaml").write_text("version: 1\n")
    assert "AD931" in cli("validate", str(folder)).stderr
