"""`adapterdock registries`: which are configured, and whether they can be opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.registry.catalogue.catalogue import open_catalogue
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import publish, registry
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTERDOCK_CONFIG", str(tmp_path / "config.toml"))
    registry(tmp_path / "team", "Our team")
    path = tmp_path / "config.toml"
    path.write_text('[registries]\nteam = "./team"\ngone = "./gone"\n')
    return path


def test_each_row_says_what_a_registry_is_or_why_it_cannot_be_opened(
    config: Path, cli: Cli
) -> None:
    done = cli("registries", "--json")
    assert done.exit_code == 0
    team, gone = json.loads(done.stdout)["registries"]
    assert (team["title"], team["url"], team["problem"]) == ("Our team", "./team", None)
    assert len(team["id"]) == 32 and str(config) in team["from"]
    assert (gone["id"], gone["code"], gone["problem"]) == (None, "AD860", "There is no registry")
    shown = cli("registries")
    assert "team\tOur team\t" in shown.stdout and "./gone: There is no registry" in shown.stdout
    assert "2 registries configured" in shown.stderr


def test_a_manifest_without_registries_leaves_those_of_the_user(config: Path, cli: Cli) -> None:
    manifest = config.with_name("adapters.yaml")
    manifest.write_text("version: 1\nbase: {model: ./base}\n")
    assert [r["name"] for r in json.loads(cli("registries", "--json").stdout)["registries"]] == [
        "team",
        "gone",
    ]
    manifest.write_text("version: 1\nbase: {model: ./base}\nregistries: {own: ./team}\n")
    (row,) = json.loads(cli("registries", "--json").stdout)["registries"]
    assert (row["name"], row["title"]) == ("own", "Our team")
    assert "adapters.yaml:3:" in row["from"]


def test_commands_know_the_users_registries(config: Path, cli: Cli) -> None:
    assert "refunds is not published" in cli("versions", "team/refunds").stderr
    assert "Unknown registry 'taem'" in cli("versions", "taem/refunds").stderr


def test_none_configured_is_no_error(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("registries")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "0 registries configured" in done.stderr


def test_a_snapshot_is_written_by_name_or_url(config: Path, cli: Cli, tmp_path: Path) -> None:
    assert "is empty" in cli("registry", "snapshot", "team").stdout
    publish(open_catalogue(LocalStorage(tmp_path / "team")), tmp_path / "files", "1.0.0")
    done = cli("registry", "snapshot", "team")
    assert done.stdout == "Wrote snapshots/00000001.jsonl.gz: 1 version\n"
    again = json.loads(cli("registry", "snapshot", "./team", "--json").stdout)
    assert (again["path"], again["new"]) == ("snapshots/00000001.jsonl.gz", False)
    assert cli("registry", "snapshot", "nothing").exit_code == 2
    assert cli("registry", "snapshot", "./nothing").exit_code == 1
