"""`adapterdock registry init`, `publish`, `versions`, `promote`, `history` and marks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    made = cli("registry", "init", "./registry")
    assert made.exit_code == 0, made.stderr
    return project


def test_a_version_is_published_promoted_and_listed(team: Project, cli: Cli) -> None:
    (team.folder / "metrics.json").write_text('{"accuracy": 0.91}')
    dry = cli("publish", "./tone", "team/refunds@1.0.0", "--dry-run")
    assert "can be published" in dry.stdout
    arguments = ("publish", "./tone", "team/refunds@1.0.0", "--metrics", "metrics.json")
    first = cli(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "Published team/refunds@1.0.0: 2 new files" in first.stdout
    again = cli(*arguments)
    assert again.exit_code == 0
    assert "published already" in again.stdout
    assert cli(*arguments, "--licence", "MIT").exit_code == 1
    data = json.loads(cli(*arguments, "--json").stdout)
    assert (data["published"], data["new"]) == (True, False)
    done = cli("promote", "team/refunds@1.0.0", "prod", "--require", "accuracy>=0.9", "--by", "ada")
    assert "refunds@prod selects 1.0.0; value 1" in done.stdout
    assert cli("promote", "team/refunds@1.0.0", "prod", "--require", "f1>1").exit_code == 1
    listed = cli("versions", "team/refunds")
    assert "1.0.0\tprod" in listed.stdout
    values = json.loads(cli("history", "team/refunds", "prod", "--json").stdout)["values"]
    assert [(value["version"], value["by"]) for value in values] == [("1.0.0", "ada")]
    assert "ada" in cli("history", "team/refunds", "prod").stdout


def test_a_version_is_published_although_the_journal_is_damaged(team: Project, cli: Cli) -> None:
    assert cli("publish", "./tone", "team/refunds@1.0.0").exit_code == 0
    (team.folder / "registry/journal/00000001.json").write_text("damaged")
    done = cli("publish", "./tone", "team/refunds@1.1.0")
    assert (done.exit_code, "Published team/refunds@1.1.0" in done.stdout) == (0, True)
    assert "refunds@1.1.0 is published, but the journal has no line about it" in done.stderr
    data = json.loads(cli("publish", "./tone", "team/refunds@1.2.0", "--json").stdout)
    assert (data["published"], [one["code"] for one in data["problems"]]) == (True, ["AD849"])
    assert "1.1.0" in cli("versions", "team/refunds").stdout


def test_a_change_is_made_although_the_journal_is_damaged(team: Project, cli: Cli) -> None:
    assert cli("key", "new", "team.key").exit_code == 0
    assert cli("publish", "./tone", "team/refunds@1.0.0").exit_code == 0
    (team.folder / "rules.json").write_text("{}")
    line = team.folder / "registry/journal/00000001.json"
    whole = line.read_bytes()
    for command, said in (
        (("promote", "team/refunds@1.0.0", "prod"), "refunds@prod selects 1.0.0"),
        (("demote", "team/refunds", "prod"), "refunds@prod selects nothing"),
        (("yank", "team/refunds@1.0.0", "--why", "wrong"), "refunds@1.0.0 is marked (yank)"),
        (("sign", "team/refunds@1.0.0", "--key", "team.key"), "is signed"),
        (("registry", "rules", "set", "rules.json"), "Rules 1 are set"),
    ):
        line.write_text("damaged")
        done = cli(*command)
        assert done.exit_code == 0, (command, done.stderr)
        assert "warning AD849" in done.stderr and "the journal has no line" in done.stderr
        assert said in done.stderr.replace("\n", " ")
        line.write_bytes(whole)
        again = cli(*command)  # it was made
        assert (again.exit_code, "AD849" in again.stderr) == (0, False), (command, again.stderr)
    # what cannot be made is still an error
    assert cli("promote", "team/refunds@9.9.9", "prod").exit_code == 1


def test_versions_of_a_name_that_is_misspelt_suggest_the_right_one(team: Project, cli: Cli) -> None:
    cli("publish", "./tone", "team/refunds@1.0.0")
    assert "Did you mean 'refunds'?" in cli("versions", "team/refund").stderr
    assert "adapterdock search" in cli("versions", "team/billing").stderr


def test_marks_are_set_and_shown(team: Project, cli: Cli) -> None:
    cli("publish", "./tone", "team/refunds@1.0.0")
    assert cli("yank", "team/refunds@1.0.0").exit_code == 2  # --why is needed
    assert "is yanked" in cli("yank", "team/refunds@1.0.0", "--why", "wrong").stdout
    shown = json.loads(cli("versions", "team/refunds", "--json").stdout)["versions"]
    assert (shown[0]["yanked"], shown[0]["why"]) == (True, "wrong")
    assert "not yanked" in cli("unyank", "team/refunds@1.0.0").stdout
    assert "deprecated" in cli("deprecate", "team/refunds@1.0.0", "--why", "old").stdout
    assert "nothing changes" in cli("unyank", "team/refunds@1.0.0").stdout
    promoted = cli("promote", "team/refunds@1.0.0", "prod")
    assert (promoted.exit_code, "is deprecated: old" in promoted.stderr) == (0, True)
    assert "selects nothing" in cli("demote", "team/refunds", "prod").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("versions", "team/nothing"), 1, "AD861"),
        (("versions", "team/refunds@1.0.0"), 2, "AD865"),
        (("history", "team/refunds@1.0.0", "prod"), 2, "AD865"),
        (("demote", "team/refunds@1.0.0", "prod"), 2, "AD865"),
        (("demote", "team/refunds", "never"), 1, "AD861"),
        (("demote", "team/nothing", "prod", "--dry-run"), 1, "AD861"),
        (("history", "team/refunds", "prod"), 1, "AD861"),
        (("versions", "other/refunds"), 2, "AD865"),
        (("promote", "team/refunds", "prod"), 2, "AD865"),
        (("promote", "team/refunds@1.0.0", "prod", "--require", "x"), 2, "AD865"),
        (("versions", "team/refunds", "--registry", "./tone"), 1, "AD860"),
        (("registry", "init", "./registry"), 1, "AD864"),
        (("publish", "./tone", "team/refunds@1.0.0", "--metrics", "nothing.json"), 2, "AD865"),
    ],
)
def test_what_cannot_be_done_is_a_finding(
    team: Project, cli: Cli, arguments: tuple[str, ...], status: int, code: str
) -> None:
    result = cli(*arguments)
    assert (result.exit_code, code in result.stderr) == (status, True), result.stderr


def test_a_bare_name_to_write_to_is_a_folder(
    cli: Cli, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    done = cli("registry", "init", "shelf")
    assert done.exit_code == 0, done.output
    assert (project.folder / "shelf" / "registry.json").is_file()
    copied = cli("mirror", "./shelf", "copy")
    assert copied.exit_code == 0, copied.output
    assert (project.folder / "copy" / "registry.json").is_file()
    assert cli("registry", "init", "hf://acme/shelf").exit_code == 1
