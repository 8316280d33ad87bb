"""The command `sbom`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import adapterdock
import pytest
from support.project import Project

Cli = Callable[..., Any]


@pytest.fixture
def ready(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": {"source": "./tone", "licence": "MIT"}})
    adapterdock.lock(project.manifest)
    return project


def test_it_prints_the_bill_and_warnings_apart(cli: Cli, ready: Project) -> None:
    done = cli("sbom", ready.manifest)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["bomFormat"] == "CycloneDX"
    assert "AD838" in done.stderr


def test_it_writes_a_file(cli: Cli, ready: Project) -> None:
    path = ready.folder / "bom.json"
    done = cli("sbom", ready.manifest, "--output", path)
    assert done.exit_code == 0
    assert "2 components" in done.stdout
    assert path.read_text() == cli("sbom", ready.manifest).stdout


def test_as_json_the_warnings_are_in_it(cli: Cli, ready: Project) -> None:
    data = json.loads(cli("sbom", ready.manifest, "--json").stdout)
    assert data["schema"] == "adapterdock.sbom/1"
    assert [finding["code"] for finding in data["findings"]] == ["AD838"]
    assert data["bom"]["bomFormat"] == "CycloneDX"


def test_without_a_lock_it_says_so(cli: Cli, ready: Project) -> None:
    ready.lock_file.unlink()
    done = cli("sbom", ready.manifest)
    assert done.exit_code == 1
    assert "adapterdock lock" in done.stderr
    assert not done.stdout


def test_a_file_that_cannot_be_written_is_an_error(cli: Cli, ready: Project) -> None:
    done = cli("sbom", ready.manifest, "--output", ready.folder / "nothing/bom.json")
    assert done.exit_code == 2
    assert "AD909 unwritable: Cannot write the bill of materials" in done.stderr
