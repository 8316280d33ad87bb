"""The command line, run within the process of the test; and a project with a registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from adapterdock.cli.main import app
from support.builders import write_tokenizer
from support.project import Project
from support.team import Team, in_production
from typer.testing import CliRunner, Result


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``cli("validate", "--json")``: its exit status, stdout and stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "ADAPTERDOCK_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, given: str | None = None) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), input=given)

    return call


@pytest.fixture
def team(project: Project) -> Team:
    """Version 1.0.0 is in production, and locked; its adapter's name is ``tone``."""
    write_tokenizer(project.folder / "base")
    return in_production(project)
