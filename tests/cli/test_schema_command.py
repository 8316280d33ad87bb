"""`adapterdock schema` gives editors the schema of this version; `init` names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapterdock.manifests.json_schema import json_schema
from adapterdock.manifests.manifest import read_manifest
from adapterdock.manifests.schema_file import SCHEMA_ADDRESS, SCHEMA_FILE
from typer.testing import Result

Cli = Callable[..., Result]


def test_it_prints_the_schema(cli: Cli) -> None:
    result = cli("schema")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert json.loads(result.stdout) == json_schema()


def test_it_prints_the_path_of_the_installed_file(cli: Cli) -> None:
    assert cli("schema", "--path").stdout == f"{SCHEMA_FILE}\n"
    assert Path(cli("schema", "--path").stdout.strip()).is_file()


def test_a_new_manifest_names_the_schema_in_its_first_line(cli: Cli, tmp_path: Path) -> None:
    cli("init", tmp_path / "a.yaml", "--model", "hf://acme/base")
    first = (tmp_path / "a.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_ADDRESS}"
    assert read_manifest(tmp_path / "a.yaml").manifest.adapters == {}
