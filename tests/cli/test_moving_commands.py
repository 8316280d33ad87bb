"""`adapterdock mirror` and `adapterdock registry verify`, `gc` and `renumber`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    for arguments in (
        ("registry", "init", "./registry"),
        ("publish", "./tone", "team/refunds@1.0.0"),
        ("promote", "team/refunds@1.0.0", "prod"),
    ):
        made = cli(*arguments)
        assert made.exit_code == 0, made.stderr
    return project


def test_a_registry_is_verified_and_damage_is_named(team: Project, cli: Cli) -> None:
    good = cli("registry", "verify", "team")
    assert good.exit_code == 0, good.stderr
    assert "Verified 1 version, 2 contents" in good.stdout
    blob = min((team.folder / "registry/blobs/sha256").iterdir())
    blob.unlink()
    bad = cli("registry", "verify", "./registry")
    assert bad.exit_code == 1
    assert "AD847" in bad.stdout
    assert blob.name in bad.stdout
    data = json.loads(cli("registry", "verify", "./registry", "--json").stdout)
    assert (data["ok"], data["findings"][0]["code"]) == (False, "AD847")
    assert data["counts"]["entries"] == 1


def test_verify_completes_the_journal_unless_told_not_to(
    team: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.registry.records.journal_lines.time.sleep", lambda _: None)
    (team.folder / "registry/journal/00000002.json").unlink()
    told = cli("registry", "verify", "team", "--no-write")
    assert told.exit_code == 0
    assert "AD849" in told.stdout
    added = cli("registry", "verify", "team")
    assert "Added 1 line to the journal" in added.stdout
    assert "AD849" not in cli("registry", "verify", "team").stdout


def test_a_mirror_is_made_and_continued(team: Project, cli: Cli) -> None:
    dry = cli("mirror", "team", "./mirror", "--dry-run")
    assert "Would copy 6 files" in dry.stdout, dry.stderr
    assert not (team.folder / "mirror").exists()
    made = cli("mirror", "team", "./mirror")
    assert "Copied 6 files" in made.stdout, made.stderr
    assert "has everything already" in cli("mirror", "team", "./mirror").stdout
    refused = cli("promote", "team/refunds@1.0.0", "beta", "--registry", "./mirror")
    assert (refused.exit_code, "AD867" in refused.stderr) == (1, True)
    data = json.loads(cli("mirror", "./mirror", "./second", "--only", "ref*", "--json").stdout)
    assert data["names"] == ["refunds"]
    assert data["bytes"] > 0
    assert cli("registry", "verify", "./second").exit_code == 0
    again = cli("mirror", "team", "./tone")
    assert (again.exit_code, "AD864" in again.stderr) == (1, True)


def test_gc_removes_what_no_version_needs(team: Project, cli: Cli) -> None:
    orphan = team.folder / "registry/blobs/sha256" / ("ab" * 32)
    orphan.write_bytes(b"left by a killed publisher")
    dry = cli("registry", "gc", "team", "--dry-run")
    assert "Would remove 1 content" in dry.stdout
    assert orphan.exists()
    done = cli("registry", "gc", "team", "--grace", "90m")
    assert "Removed 1 content (26 B)" in done.stdout
    assert not orphan.exists()
    assert json.loads(cli("registry", "gc", "team", "--json").stdout)["removed"] == []
    assert cli("registry", "verify", "team").exit_code == 0


@pytest.mark.parametrize("grace", ["", "59m", "0", "1", "-1h", "1w", "1h "])
def test_a_grace_below_an_hour_is_refused(team: Project, cli: Cli, grace: str) -> None:
    result = cli("registry", "gc", "team", "--grace", grace)
    assert (result.exit_code, "AD865" in result.stderr) == (2, True)


def test_renumber_merges_two_branches(
    team: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "ada")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.com")

    def git(*arguments: str, ok: bool = True) -> None:
        subprocess.run(["git", *arguments], cwd=team.folder, check=ok, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "start")
    for branch in ("other", "main"):
        git("checkout", "-q", *(["-b"] if branch == "other" else []), branch)
        cli("demote", "team/refunds", "prod", "--by", branch)
        git("add", "-A")
        git("commit", "-qm", branch)
    assert cli("registry", "renumber", "team").exit_code == 2
    git("merge", "other", ok=False)
    assert cli("registry", "verify", "team").exit_code == 1
    done = cli("registry", "renumber", "team")
    assert done.exit_code == 0, done.stderr
    assert (
        "aliases/prod/00000002.json -> adapters/refunds/aliases/prod/00000003.json" in done.stdout
    )
    values = json.loads(cli("history", "team/refunds", "prod", "--json").stdout)["values"]
    assert [value["by"] for value in values][1:] == ["main", "other"]
    assert cli("registry", "verify", "team").exit_code == 0
    assert "Nothing to renumber" in cli("registry", "renumber", "team").stdout


def test_mirror_of_the_hub_prints_what_it_has_and_the_row_for_the_manifest(
    cli: Cli, at_desk: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/a0", {p.name: p.read_bytes() for p in (at_desk / "adapters/a0").iterdir()})
    (at_desk / "team").mkdir()
    manifest = at_desk / "team" / "m.yaml"
    manifest.write_text(
        "version: 1\nbase: {model: ../base}\nadapters: {a0: {source: hf://acme/a0}}\n"
    )
    assert "AD504" in cli("mirror", "--hub", manifest, "./hf").stderr
    assert cli("lock", manifest).exit_code == 0
    planned = cli("mirror", "--hub", "team/m.yaml", "./hf", "--dry-run")
    assert "Would copy 2 files" in planned.stderr and not (at_desk / "hf").exists()
    done = cli("mirror", "--hub", "team/m.yaml", "./hf")
    row = done.stdout.splitlines()[1].split("\t")
    assert row[:2] == ["a0", "2"] and row[2].startswith("hf://acme/a0@")
    assert (at_desk / "hf" / row[3] / "adapter_config.json").is_file()
    assert 'Next, in the manifest: mirrors: {"hf://": ../hf/}' in done.stderr
    data = json.loads(cli("mirror", "--hub", "team/m.yaml", "./hf", "--json").stdout)
    assert data["schema"] == "adapterdock.hub-mirror/1"
    assert data["mirrors"] == {"hf://": "../hf/"} and data["files"] == []
    manifest.write_text(manifest.read_text() + 'mirrors: {"hf://": ../hf/}\n')
    monkeypatch.setenv("HF_HUB_CACHE", str(at_desk / "none"))
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(at_desk / "cache"))
    assert cli("pull", "team/m.yaml", "--frozen", "--offline").exit_code == 0


@pytest.mark.parametrize("option", [("--only", "a*"), ("--manifest", "adapters.yaml")])
def test_options_of_a_registry_do_not_go_with_the_hub(
    cli: Cli, at_desk: Path, option: tuple[str, str]
) -> None:
    result = cli("mirror", "--hub", "adapters.yaml", "./hf", *option)
    assert (result.exit_code, "AD914" in result.stderr) == (2, True)


def test_a_manifest_without_the_hub_has_nothing_to_mirror(cli: Cli, at_desk: Path) -> None:
    forgotten = cli("mirror", "adapters.yaml", "./hf")
    assert forgotten.exit_code == 2 and "Add --hub" in forgotten.stderr
    cli("lock")
    result = cli("mirror", "--hub", "adapters.yaml", "./hf")
    assert (result.exit_code, "AD917" in result.stderr) == (2, True)
