"""`adapterdock sign`, and `--sign` of the commands that write to a registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.registry.files.digests import sha256_file
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    (project.folder / "phrase").write_text("open sesame\n")
    for made in (
        cli("registry", "init", "./registry"),
        cli("key", "new", "anna.key"),
        cli("key", "new", "ben.key", "--passphrase-file", "phrase"),
    ):
        assert made.exit_code == 0, made.stderr
    return project


def signatures(team: Project) -> list[str]:
    root = team.folder / "registry/adapters"
    return sorted(str(path.relative_to(root)) for path in root.rglob("signatures/**/*.json"))


def test_each_command_signs_what_it_writes(team: Project, cli: Cli) -> None:
    anna = ("--sign", "anna.key")
    done = cli("publish", "./tone", "team/refunds@1.0.0", *anna)
    assert done.exit_code == 0, done.stderr
    ben = ("--sign", "ben.key", "--passphrase-file", "phrase")
    assert cli("promote", "team/refunds@1.0.0", "prod", *ben).exit_code == 0
    assert cli("yank", "team/refunds@1.0.0", "--why", "bad", *anna).exit_code == 0
    assert cli("unyank", "team/refunds@1.0.0", *anna).exit_code == 0
    assert cli("deprecate", "team/refunds@1.0.0", "--why", "old", *anna).exit_code == 0
    folders = [Path(path).parent.as_posix() for path in signatures(team)]
    assert folders == [
        "refunds/signatures/1.0.0",
        "refunds/signatures/aliases/prod/00000001",
        "refunds/signatures/marks/1.0.0/00000001",
        "refunds/signatures/marks/1.0.0/00000002",
        "refunds/signatures/marks/1.0.0/00000003",
    ]
    assert "the value is signed" in cli("promote", "team/refunds@1.0.0", "prod", *anna).stdout
    assert cli("demote", "team/refunds", "prod", *anna).exit_code == 0
    assert any("aliases/prod/00000002" in path for path in signatures(team))


def test_sign_adds_signatures_later(team: Project, cli: Cli) -> None:
    cli("publish", "./tone", "team/refunds@1.0.0")
    cli("promote", "team/refunds@1.0.0", "prod")
    key = ("--key", "ben.key", "--passphrase-file", "phrase")
    entry = team.folder / "registry/adapters/refunds/versions/1.0.0.json"
    first = cli("sign", "team/refunds@1.0.0", *key)
    assert (first.exit_code, "Signed refunds@1.0.0" in first.stdout) == (0, True), first.stderr
    assert f"\n  {sha256_file(entry)}\n" in first.stdout
    assert "has signed refunds@1.0.0 already" in cli("sign", "team/refunds@1.0.0", *key).stdout
    second = cli("sign", "other/refunds@prod", *key, "--registry", "./registry")
    assert "value 1 of refunds@prod, which selects 1.0.0" in second.stdout, second.stderr
    assert len(signatures(team)) == 2


def test_a_dry_run_checks_the_key_and_signs_nothing(team: Project, cli: Cli) -> None:
    dry = ("publish", "./tone", "team/refunds@1.0.0", "--dry-run", "--sign")
    assert cli(*dry, "anna.key").exit_code == 0
    assert cli(*dry, "ben.key").exit_code == 2
    cli("publish", "./tone", "team/refunds@1.0.0")
    promoted = cli("promote", "team/refunds@1.0.0", "prod", "--dry-run", "--sign", "anna.key")
    assert promoted.exit_code == 0
    assert signatures(team) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sign", "team/refunds@1.0.0", "--key", "ben.key"), "AD881"),
        (("sign", "team/refunds@1.0.0", "--key", "missing.key"), "AD881"),
        (("sign", "team/refunds@1.0.0", "--key", "awskms:alias/team"), "AD881"),
        (("sign", "team/refunds", "--key", "anna.key"), "AD865"),
        (("sign", "team/refunds@^1", "--key", "anna.key"), "AD865"),
        (
            ("sign", "team/refunds@1.0.0", "--key", "anna.key", "--public-key", "ben.key.pub"),
            "AD881",
        ),
        (("promote", "team/refunds@1.0.0", "prod", "--passphrase-file", "phrase"), "AD914"),
        (("publish", "./tone", "team/refunds@1.0.0", "--public-key", "ben.key.pub"), "AD914"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_and_nothing_asked(
    team: Project, cli: Cli, arguments: tuple[str, ...], code: str
) -> None:
    cli("publish", "./tone", "team/refunds@1.0.0")
    result = cli(*arguments)
    assert (result.exit_code, code in result.stderr) == (2, True), result.stderr
    assert signatures(team) == []
