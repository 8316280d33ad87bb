"""`adapterdock outdated`, and `lock` with adapters in a registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from support.project import Project
from support.team import Team
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, monkeypatch: pytest.MonkeyPatch) -> Team:
    made = Team(project)
    made.publish("1.0.0")
    made.lock()
    monkeypatch.chdir(project.folder)
    return made


def test_the_status_says_whether_something_is_newer(team: Team, cli: Cli) -> None:
    same = cli("outdated")
    assert (same.exit_code, same.stdout) == (0, "")
    assert "0 of 1 adapter has something newer" in same.stderr
    assert "Not compared" not in same.stderr
    team.publish("1.1.0")
    team.publish("2.0.0")
    newer = cli("outdated", "adapters.yaml")
    assert newer.exit_code == 1
    assert "tone\t1.0.0\t1.1.0\t2.0.0" in newer.stdout
    data = json.loads(cli("outdated", "--json").stdout)
    assert data["exit_status"] == 1
    assert data["adapters"][0] == {
        "adapter": "tone",
        "source": "registry://team/refunds@^1.0",
        "locked": "1.0.0",
        "selected": "1.1.0",
        "newest": "2.0.0",
        "alias": None,
        "outdated": True,
    }


def test_adapters_without_versions_are_counted(
    project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"})
    monkeypatch.chdir(project.folder)
    assert cli("lock").exit_code == 0
    done = cli("outdated")
    assert done.exit_code == 0
    assert "Not compared: 1 adapter without versions" in done.stderr


def test_a_registry_that_cannot_be_read_is_an_error(team: Team, cli: Cli) -> None:
    shutil.rmtree(team.place)
    result = cli("outdated")
    assert result.exit_code == 1
    assert "AD860" in result.stderr
    assert json.loads(cli("outdated", "--json").stdout)["findings"][0]["code"] == "AD860"


def test_an_upgrade_shows_the_new_version(team: Team, cli: Cli) -> None:
    team.publish("1.1.0")
    result = cli("lock", "--diff")
    assert "source: registry://team/refunds@1.0.0 -> registry://team/refunds@1.1.0" in result.stdout
    assert "registry.journal" not in result.stdout
    assert cli("lock", "--upgrade", "tone").exit_code == 0
    assert cli("outdated").exit_code == 0


def test_checking_a_lock_warns_of_marks_and_passes(team: Team, cli: Cli) -> None:
    team.mark("1.0.0", "deprecate", "use 2.0.0")
    for command in (("lock", "--check"), ("validate",)):
        result = cli(*command)
        assert result.exit_code == 0, result.stdout
        assert "refunds@1.0.0 is deprecated: use 2.0.0" in result.stdout + result.stderr
