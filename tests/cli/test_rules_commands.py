"""`adapterdock registry rules`."""

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
    cli("registry", "init", "./registry")
    cli("key", "new", "anna.key")
    cli("key", "new", "ben.key")
    return project


def write(team: Project, **data: object) -> None:
    (team.folder / "rules.json").write_text(json.dumps(data))


def test_rules_are_set_shown_and_obeyed(team: Project, cli: Cli) -> None:
    assert "has no rules" in cli("registry", "rules", "show").stdout
    write(team, aliases={"prod": {"metrics": ["accuracy>=0.9"], "promoters": ["anna.key.pub"]}})
    dry = cli("registry", "rules", "set", "rules.json", "--dry-run")
    assert "can be rules 1" in dry.stdout, dry.stderr
    assert "Set rules 1" in cli("registry", "rules", "set", "rules.json").stdout
    assert "hold already" in cli("registry", "rules", "set", "rules.json").stdout
    shown = cli("registry", "rules", "show", "--registry", "./registry").stdout
    (team.folder / "rules.json").write_text(shown)
    assert "hold already" in cli("registry", "rules", "set", "rules.json").stdout
    data = json.loads(cli("registry", "rules", "show", "--registry", "team", "--json").stdout)
    assert data["number"] == 1
    (team.folder / "metrics.json").write_text('{"accuracy": 0.91}')
    cli("publish", "./tone", "team/refunds@1.0.0", "--metrics", "metrics.json")
    refused = cli("promote", "team/refunds@1.0.0", "prod")
    assert (refused.exit_code, "AD859" in refused.stderr) == (1, True)
    tighter = cli(
        "promote", "team/refunds@1.0.0", "prod", "--sign", "anna.key", "--require", "accuracy>0.95"
    )
    assert (tighter.exit_code, "AD868" in tighter.stderr) == (1, True)
    done = cli("promote", "team/refunds@1.0.0", "prod", "--sign", "anna.key")
    assert done.exit_code == 0, done.stderr


def test_two_people_set_rules_one_after_another(team: Project, cli: Cli) -> None:
    write(team, keys=["anna.key.pub", "ben.key.pub"], threshold=2)
    assert cli("registry", "rules", "set", "rules.json").exit_code == 0
    write(team, aliases={"prod": {"licences": ["MIT"]}})
    first = cli("registry", "rules", "set", "rules.json", "--sign", "anna.key")
    assert (first.exit_code, "do not hold yet" in first.stdout) == (0, True), first.stderr
    second = cli("registry", "rules", "set", "rules.json", "--sign", "ben.key")
    assert "Set rules 2" in second.stdout, second.stderr


def test_without_a_registry_or_with_several_none_is_chosen(team: Project, cli: Cli) -> None:
    team.write({"tone": "./tone"}, registries={"team": "./registry", "other": "./other"})
    result = cli("registry", "rules", "show")
    assert (result.exit_code, "2 registries are configured" in result.stderr) == (2, True)
