"""Findings show lines of manifests, and never lines of other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import LLAMA_QV
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]

SECRETS = {
    "credentials": "[default]\naws_access_key_id = hush-1\naws_secret_access_key = hush-2\n",
    ".netrc": "machine h login hush-1 password hush-2\n",
    "kubeconfig": "apiVersion: v1\nusers: [{name: hush-1, user: {token: hush-2}}]\nusers: []\n",
    "secrets.yaml": "db_password: hush-1\nname: hush-2\n",
    "broken.yaml": "token: hush-1\n  hush-2: [\n",
    "config.json": '{"auths": {"hush-1": {"auth": "hush-2"}}}\n',
    "id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\nhush-1\nhush-2: @\n",
    "environ": "A=hush-1\0B=hush-2\0",
    "list.yaml": "- hush-1\n- hush-2\n",
}


@pytest.mark.parametrize("name", SECRETS)
def test_extending_another_kind_of_file_shows_none_of_its_lines(
    name: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(SECRETS[name])
    manifest = tmp_path / "adapters.yaml"
    manifest.write_text(f"version: 1\nextends: {name}\n")
    for options in ((), ("--json",)):
        result = cli("validate", manifest, *options)
        assert result.exit_code == 1
        assert "AD140" in result.output
        assert "hush" not in result.output


@pytest.mark.parametrize("name", ["credentials", ".netrc", "broken.yaml", "id_rsa"])
def test_a_link_to_such_a_file_shows_none_of_its_lines(name: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SECRETS[name])
    manifest = tmp_path / "adapters.yaml"
    manifest.symlink_to(tmp_path / name)
    result = cli("validate", manifest)
    assert result.exit_code == 1
    assert "hush" not in result.output


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\nadapters:\n  tone: {source: tone}\n", "tone: {source: tone}"),
        ("base: {modle: ./base}\n", "base: {modle: ./base}"),
        ("adapters:\n  tone: @own\n", "tone: @own"),
    ],
)
def test_lines_of_manifests_and_extended_manifests_are_shown(
    text: str, line: str, cli: Cli, tmp_path: Path
) -> None:
    parent = tmp_path / "parent.yaml"
    parent.write_text(text)
    assert line in cli("validate", parent).output
    manifest = tmp_path / "adapters.yaml"
    manifest.write_text("version: 1\nextends: parent.yaml\n")
    assert line in cli("validate", manifest).output


def test_a_finding_on_fit_shows_its_line_and_a_group_begins_with_its_first_place(
    project: Project, cli: Cli
) -> None:
    project.base()
    for name in ("tone", "other"):
        project.adapter(name, modules={n: (i, 48) for n, (i, _) in LLAMA_QV.items()})
    manifest = project.write({"tone": "./tone", "other": "./other"})
    lines = cli("validate", manifest).stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if "AD343" in line)
    assert lines[at].startswith(f"{manifest}:8:13: error AD343 ")
    assert lines[at + 1] == "  8 |     source: ./tone"
    assert lines[at + 2] == "    |             ^"
    assert f"    {manifest}:10:13 adapters.other.source" in lines
