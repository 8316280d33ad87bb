"""The command line, run within the process of the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from adapterdock.cli.main import app
from typer.testing import CliRunner, Result


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``cli("validate", "--json")``: its exit status, stdout and stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "ADAPTERDOCK_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, given: str | None = None) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), input=given)

    return call
