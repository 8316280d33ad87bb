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
