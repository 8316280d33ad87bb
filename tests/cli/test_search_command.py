"""`adapterdock search`: over all configured registries, by words, filters and base."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.storages.layout import entry_file
from support import terminal
from support.project import Project
from support.published import publish, registry
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry", "other": "./other"})
    monkeypatch.chdir(project.folder)
    for folder in ("registry", "other"):
        assert cli("registry", "init", f"./{folder}").exit_code == 0
    done = cli("publish", "./tone", "team/refunds@1.0.0", "--tag", "support", "--licence", "MIT")
    assert done.exit_code == 0, done.stderr
    publish(registry(project.folder / "third"), project.folder / "files", "3.0.0")
    return project


def versions(result: Result) -> list[str]:
    data = json.loads(result.stdout)["registries"]
    return [f"{r['name']}/{v['name']}@{v['version']}" for r in data for v in r["versions"]]


def test_all_configured_registries_are_searched(team: Project, cli: Cli) -> None:
    cli("publish", "./tone", "other/refunds-de@1.0.0")
    found = cli("search", "refu", "--json")
    assert versions(found) == ["team/refunds@1.0.0", "other/refunds-de@1.0.0"]
    one = cli("search", "refu", "--registry", "other", "--json")
    assert versions(one) == ["other/refunds-de@1.0.0"]
    url = cli("search", "refu", "--registry", "./third", "--json")
    assert versions(url) == ["None/refunds@3.0.0"]
    shown = cli("search", "refu")
    assert "team/refunds@1.0.0\tLORA 4\t" in shown.stdout
    assert "2 versions found" in shown.stderr


def test_filters_and_marks(team: Project, cli: Cli) -> None:
    for wanted in (("--tag", "support"), ("--licence", "mit"), ("--method", "lora"), ()):
        assert versions(cli("search", *wanted, "--json")) == ["team/refunds@1.0.0"]
    for other in (("--tag", "x"), ("--licence", "GPL"), ("--method", "OFT"), ("nothing",)):
        found = cli("search", *other, "--json")
        assert (versions(found), found.exit_code) == ([], 0)
    cli("yank", "team/refunds@1.0.0", "--why", "wrong")
    (row,) = json.loads(cli("search", "--json").stdout)["registries"][0]["versions"]
    assert (row["yanked"], row["deprecated"]) == (True, False)
    assert "\tyanked\t" in cli("search").stdout


def test_fits_answers_which_adapters_are_of_this_base(team: Project, cli: Cli) -> None:
    team.base("else", seed=9)  # of the same shape, with other values
    for base in ("./base", "base", "adapters.yaml"):
        found = cli("search", "--fits", base, "--json")
        assert versions(found) == ["team/refunds@1.0.0"], found.stderr
    assert versions(cli("search", "--fits", "./else", "--json")) == []
    done = cli("search", "--fits", "./base", "--registry", "./third")
    assert "0 versions found" in done.stderr
    assert "1 other version recorded too little of the base" in done.stderr


def test_a_declared_fingerprint_is_enough(team: Project, cli: Cli) -> None:
    assert cli("fingerprint", "--write").exit_code == 0
    (team.folder / "base").rename(team.folder / "gone")
    assert versions(cli("search", "--fits", "adapters.yaml", "--json")) == ["team/refunds@1.0.0"]


@pytest.mark.parametrize(
    ("base", "status", "code"),
    [
        ("what is this", 2, "AD865"),
        ("./nothing", 1, "AD2"),
        ("missing.yaml", 1, "AD1"),
    ],
)
def test_a_base_that_cannot_be_read_is_a_finding(
    team: Project, cli: Cli, base: str, status: int, code: str
) -> None:
    done = cli("search", "--fits", base)
    assert (done.exit_code, code in done.stderr) == (status, True), done.stderr


def test_a_registry_that_cannot_be_searched_is_said(team: Project, cli: Cli) -> None:
    (team.folder / "other" / "registry.json").unlink()
    done = cli("search", "refunds", "--json")
    assert done.exit_code == 3
    assert versions(done) == ["team/refunds@1.0.0"]
    rows: list[dict[str, Any]] = json.loads(done.stdout)["registries"]
    assert [row["total"] for row in rows] == [1, None]
    assert rows[1]["problems"][0]["code"] == "AD860"
    (team.folder / "registry" / "registry.json").unlink()
    assert cli("search", "refunds").exit_code == 1


@pytest.mark.parametrize("snapshot", [True, False])
def test_versions_that_need_a_newer_adapterdock_are_counted(
    team: Project, cli: Cli, snapshot: bool
) -> None:
    assert cli("publish", "./tone", "team/refunds@1.1.0").exit_code == 0
    assert "newer adapterdock" not in cli("search", "--registry", "other").stderr
    path = team.folder / "registry" / entry_file("refunds", "1.1.0")
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), "critical": ["sandbox"]}))
    if snapshot:
        assert cli("registry", "snapshot", "team").exit_code == 0
    for _ in range(2):  # the second search asks the index that is kept
        done = cli("search", "refunds")
        assert done.exit_code == 0
        assert "1 version of team needs a newer adapterdock: not searched" in done.stderr
        assert "1 version found" in done.stderr
    found = json.loads(cli("search", "--json").stdout)["registries"]
    assert {one["name"]: one["newer"] for one in found} == {"team": 1, "other": 0}


def test_a_damaged_snapshot_is_a_warning(team: Project, cli: Cli) -> None:
    assert cli("registry", "snapshot", "team").exit_code == 0
    (path,) = (team.folder / "registry" / "snapshots").iterdir()
    path.write_bytes(b"damaged")
    done = cli("search", "refunds")
    assert done.exit_code == 0
    assert "team/refunds@1.0.0" in done.stdout and "AD845" in done.stderr


def test_nothing_configured_says_what_to_do(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("search", "x")
    assert done.exit_code == 2
    assert "No registry is configured" in done.stderr and "--registry URL" in done.stderr


def test_a_search_and_a_card_import_neither_numpy_nor_a_network_client(team: Project) -> None:
    for arguments in (["search", "refunds"], ["inspect", "team/refunds@1.0.0", "--card"]):
        code = (
            f"import sys\nsys.argv = ['adapterdock', *{arguments!r}]\n"
            "from adapterdock.cli.main import main\n"
            "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
            "heavy = ('torch', 'numpy', 'transformers', 'huggingface_hub', 'fsspec', 'asyncio')\n"
            "found = [name for name in heavy if name in sys.modules]\n"
            "assert not found, found\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=team.folder,
            env=terminal.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def test_only_so_many_are_shown(team: Project, cli: Cli) -> None:
    for n in range(3):
        cli("publish", "./tone", f"team/refunds@2.0.{n}")
    done = cli("search", "--limit", "2")
    assert len(done.stdout.splitlines()) == 3
    assert "4 versions found, of which 2 are shown" in done.stderr
    assert len(versions(cli("search", "--limit", "0", "--json"))) == 4
