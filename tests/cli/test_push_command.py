"""`adapterdock push`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.oci_server import OciServer
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    assert cli("registry", "init", "./registry").exit_code == 0
    assert cli("publish", "./tone", "team/refunds@2.1.0").exit_code == 0
    return project


def test_it_prints_the_source_that_pins_what_was_pushed(
    team: Project, cli: Cli, oci: OciServer
) -> None:
    target = f"oci://{oci.host}/team/refunds:2.1.0"
    dry = cli("push", "team/refunds@2.1.0", target, "--dry-run")
    assert "can be pushed" in dry.stdout
    assert not oci.blobs
    done = cli("push", "team/refunds@2.1.0", target)
    assert done.exit_code == 0, done.stderr
    pinned = done.stdout.splitlines()[-1].strip()
    assert pinned.startswith(f"oci://{oci.host}/team/refunds@sha256:")
    assert pinned in dry.stdout
    data = json.loads(cli("push", "team/refunds@2.1.0", target, "--json").stdout)
    assert (data["schema"], data["source"], data["new"]) == ("adapterdock.push/1", pinned, False)
    assert "already" in cli("push", "team/refunds@2.1.0", target).stdout
    team.write({"tone": pinned})
    assert cli("lock").exit_code == 0


@pytest.mark.parametrize(
    ("subject", "target", "status", "code"),
    [
        ("team/refunds@2.1.0", "registry.example.com/x:1", 1, "AD890"),
        ("team/refunds", "oci://127.0.0.1:9/x:1", 2, "AD865"),
        ("./nothing", "oci://127.0.0.1:9/x:1.0.0", 1, "AD2"),
    ],
)
def test_what_cannot_be_pushed_is_a_finding(
    team: Project, cli: Cli, subject: str, target: str, status: int, code: str
) -> None:
    result = cli("push", subject, target)
    assert (result.exit_code, code in result.stderr) == (status, True), result.stderr
