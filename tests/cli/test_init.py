"""`adapterdock init` writes a manifest that validates, and overwrites nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli.init import find_adapters, named_sources, render
from adapterdock.manifests.manifest import read_manifest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import lora_config, write_adapter, write_base
from support.manifest_files import Desk
from typer.testing import Result

Cli = Callable[..., Result]


def adapter(folder: Path, base: str | None = None) -> Path:
    return write_adapter(folder, lora_config(base_model_name_or_path=base))


def test_the_manifest_has_the_adapters_and_the_base_that_they_record(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "models" / "tiny")
    adapter(tmp_path / "adapters" / "tone", "models/tiny")
    adapter(tmp_path / "adapters" / "billing", "models/tiny")
    result = cli("init")
    assert result.exit_code == 0, result.output
    manifest = read_manifest("adapters.yaml").manifest
    assert {n: str(a.source) for n, a in manifest.adapters.items()} == {
        "billing": "./adapters/billing",
        "tone": "./adapters/tone",
    }
    assert str(manifest.base.model) == "./models/tiny"
    assert manifest.active == "billing"
    assert cli("validate").exit_code == 0


def test_a_hub_id_that_all_adapters_record_is_proposed(cli: Cli, tmp_path: Path) -> None:
    adapter(tmp_path / "a", "acme/base-1.5B")
    adapter(tmp_path / "b", "acme/base-1.5B")
    cli("init", tmp_path / "x.yaml")
    assert str(read_manifest(tmp_path / "x.yaml").manifest.base.model) == "hf://acme/base-1.5B"
    adapter(tmp_path / "c", "acme/other")
    result = cli("init", tmp_path / "y.yaml")
    assert read_manifest(tmp_path / "y.yaml").manifest.base.model is None
    assert "add the base model" in result.stderr


def test_another_name_that_all_adapters_record_is_proposed_as_a_comment(
    cli: Cli, tmp_path: Path
) -> None:
    write_base(tmp_path / "base")
    adapter(tmp_path / "a", "acme/desk")
    adapter(tmp_path / "b", "acme/desk")
    path = tmp_path / "x.yaml"
    assert cli("init", path, "--model", str(tmp_path / "base")).exit_code == 0
    assert read_manifest(path).manifest.base.aliases == ()
    assert cli("validate", path).exit_code == 3
    path.write_text(path.read_text(encoding="utf-8").replace("# aliases", "aliases"))
    assert read_manifest(path).manifest.base.aliases == ("acme/desk",)
    assert cli("validate", path).exit_code == 0


def test_the_proposed_alias_is_named(cli: Cli, tmp_path: Path) -> None:
    adapter(tmp_path / "a", "acme/desk")
    for file, model in (("x.yaml", "hf://acme/copy"), ("y.yaml", "hf://acme/desk")):
        lines = cli("init", tmp_path / file, "--model", model).stderr.splitlines()
        said = "The adapters call their base acme/desk. If hf://acme/copy is the same, "
        assert lines[:-1] == ([f"{said}uncomment `aliases`"] if file == "x.yaml" else [])
        assert lines[-1].startswith("Next: ")


def test_json_has_the_proposed_alias(cli: Cli, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    adapter(tmp_path / "a", "acme/desk")
    for file, model in (("x.yaml", str(tmp_path / "base")), ("y.yaml", "hf://acme/desk")):
        result = cli("init", tmp_path / file, "--model", model, "--json")
        proposed = json.loads(result.stdout)["proposed_alias"]
        assert proposed == ("acme/desk" if file == "x.yaml" else None)
        written = (tmp_path / file).read_text(encoding="utf-8")
        assert ("# aliases: [acme/desk]" in written) == (proposed is not None)


@pytest.mark.parametrize(
    "names", [("acme/base", "acme/base"), ("acme/one", "acme/two"), ("/home/ada/base",) * 2]
)
def test_no_other_name_is_proposed_for_the_same_base_or_where_adapters_disagree(
    cli: Cli, tmp_path: Path, names: tuple[str, str]
) -> None:
    for folder, name in zip(("a", "b"), names, strict=True):
        adapter(tmp_path / folder, name)
    cli("init", tmp_path / "x.yaml", "--model", "hf://acme/base")
    assert "aliases" not in (tmp_path / "x.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("recorded", ["../../etc", "hf://x/y", "a/b/c", "x", "a b/c", "", 7, None])
def test_invalid_recorded_bases_are_not_proposed(
    cli: Cli, tmp_path: Path, recorded: object
) -> None:
    write_adapter(tmp_path / "a", lora_config(base_model_name_or_path=recorded))
    assert cli("init", tmp_path / "x.yaml").exit_code == 0
    assert read_manifest(tmp_path / "x.yaml").manifest.base.model is None


def test_a_relative_model_is_rewritten_for_the_manifest(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    adapter(tmp_path / "serving" / "tone")
    assert cli("init", "serving/team.yaml", "--model", "./base").exit_code == 0
    assert str(read_manifest("serving/team.yaml").manifest.base.model) == "../base"
    assert cli("validate", "serving/team.yaml").exit_code == 0


def test_an_invalid_model_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", tmp_path / "x.yaml", "--model", "org/name")
    assert result.exit_code == 2
    assert "AD916" in result.stderr and "hf://org/name" in result.stderr
    assert not (tmp_path / "x.yaml").exists()


def test_nothing_is_ever_overwritten(cli: Cli, tmp_path: Path) -> None:
    manifest = tmp_path / "x.yaml"
    manifest.write_text("mine")
    result = cli("init", manifest)
    assert (result.exit_code, "AD907" in result.stderr) == (2, True)
    assert manifest.read_text() == "mine"
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    result = cli("init", tmp_path / "dangling.yaml")
    assert (result.exit_code, "AD907" in result.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()
    assert cli("init", tmp_path).exit_code == 2


def hinted(stderr: str) -> list[str]:
    """The arguments of `adapterdock init` in a hint."""
    found = re.search(r"`adapterdock init ?([^`]*)`", " ".join(stderr.split()))
    assert found is not None, stderr
    return shlex.split(found[1])


@pytest.mark.parametrize(
    "there",
    [
        ("adapters.yaml", "team.yaml"),
        ("adapters.yaml", "adapters-2.yaml"),
        ("a team.yml",),
        ("team.yaml",),
        ("sub/adapters.yaml",),
    ],
)
def test_the_hint_of_init_names_a_file_that_init_then_writes(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).parent.mkdir(exist_ok=True)
        assert cli("init", name).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.y*ml")}
    for asked in ("", *there, "team", "sub", "new.json"):
        Path("sub").mkdir(exist_ok=True)
        result = cli("init", *filter(None, [asked]))
        if result.exit_code == 0:
            continue
        arguments = hinted(result.stderr)
        assert cli("init", *arguments).exit_code == 0, (asked, arguments)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["adapters.yaml", "team.yaml", "its own.yml"])
def test_a_missing_manifest_is_created_by_the_hint_that_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("init", *hinted(cli("validate", name).stderr)).exit_code == 0
    assert "AD901" not in cli("validate", name).stderr


def test_a_manifest_must_end_in_yaml(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", tmp_path / "team")
    assert (result.exit_code, "AD915" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/x/adapters.yaml", "/dev/null/adapters.yaml"])
def test_an_unwritable_place_is_wrong_usage(cli: Cli, place: str) -> None:
    result = cli("init", place)
    assert (result.exit_code, "AD909" in result.stderr) == (2, True)


def test_a_folder_without_adapters_gives_a_manifest_to_fill_in(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", tmp_path / "x.yaml").exit_code == 0
    assert dict(read_manifest(tmp_path / "x.yaml").manifest.adapters) == {}


def test_names_come_from_folders_and_are_unique(tmp_path: Path) -> None:
    for place in ("tone", "Legal Team", "x/tone", "run/checkpoint-900", "run/checkpoint-1000"):
        adapter(tmp_path / place)
    adapter(tmp_path / ".hidden" / "no")
    adapter(tmp_path / "node_modules" / "no")
    found, left_out = named_sources(find_adapters(tmp_path))
    assert found == {
        "legal-team": "./Legal Team",
        "tone": "./tone",
        "run-checkpoint-900": "./run/checkpoint-900",
        "run-checkpoint-1000": "./run/checkpoint-1000",
        "adapter-5": "./x/tone",
    }
    assert left_out == []


def test_the_folder_of_the_manifest_can_be_an_adapter_itself(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    adapter(tmp_path / "tone")
    monkeypatch.chdir(tmp_path / "tone")
    assert cli("init", "--model", "../base").exit_code == 0
    assert len(read_manifest("adapters.yaml").manifest.adapters) == 1
    assert cli("validate").exit_code == 0


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=5, unique=True))
def test_any_folder_name_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, folders: list[str]
) -> None:
    found, left_out = named_sources(folders)
    assert len(found) + len(left_out) == len(folders)
    desk = Desk(tmp_path_factory.mktemp("desk"))
    manifest = desk.read(render("adapters", None, found)).manifest
    read = {name: a.source.local_path(Path("/")) for name, a in manifest.adapters.items()}
    assert read == {n: Path("/") / s for n, s in found.items()}


def test_unreadable_folders_are_skipped(tmp_path: Path) -> None:
    adapter(tmp_path / "tone")
    adapter(tmp_path / "closed" / "no")
    (tmp_path / "closed").chmod(0)
    try:
        expected = ["tone"] if os.geteuid() else ["tone", "closed/no"]
        assert find_adapters(tmp_path) == expected
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_the_next_step_can_be_pasted_into_a_shell(cli: Cli, tmp_path: Path) -> None:
    adapter(tmp_path / "a", "acme/base-1.5B")
    manifest = tmp_path / "my team.yaml"
    assert f"`adapterdock validate '{manifest}'`" in cli("init", manifest).stderr
