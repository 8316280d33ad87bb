"""--json: every command that says facts has it, and prints one object with a schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from adapterdock.cli.command import Group
from adapterdock.cli.main import app
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]


def without_json(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, Group):
        for name in command.list_commands(None):  # pyright: ignore[reportArgumentType]
            yield from without_json(command.get_command(None, name), (*path, name))  # pyright: ignore[reportArgumentType]
    elif not any("--json" in parameter.opts for parameter in command.params):
        yield " ".join(path)


def test_only_a_server_and_what_is_json_anyway_have_no_such_option() -> None:
    assert list(without_json(typer.main.get_command(app))) == ["schema", "serve"]


@pytest.fixture
def ask(
    project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)

    def call(*arguments: object) -> dict[str, Any]:
        result = cli(*arguments, "--json")
        data: dict[str, Any] = json.loads(result.stdout)
        assert next(iter(data)) == "schema", arguments
        assert result.exit_code == data.pop("exit_status", 0), result.output
        return data

    return call


def test_what_a_registry_is_told(ask: Callable[..., dict[str, Any]], cli: Cli) -> None:
    key = ask("key", "new", "team.key")
    assert (key["private"], key["public"], len(key["id"]) > 8) == (
        "team.key",
        "team.key.pub",
        True,
    )
    cli("registry", "init", "./registry")
    for version in ("1.0.0", "1.1.0"):
        assert cli("publish", "./tone", f"team/refunds@{version}").exit_code == 0
    ask("promote", "team/refunds@1.0.0", "prod")
    moved = ask("promote", "team/refunds@1.1.0", "prod")
    assert [moved[k] for k in ("before", "now", "value", "changed")] == ["1.0.0", "1.1.0", 2, True]
    again = ask("promote", "team/refunds@1.1.0", "prod")
    assert (again["before"], again["now"], again["changed"]) == ("1.1.0", "1.1.0", False)
    gone = ask("demote", "team/refunds", "prod", "--dry-run")
    assert (gone["now"], gone["dry_run"], gone["changed"]) == (None, True, True)
    signed = ask("sign", "team/refunds@1.0.0", "--key", "team.key")
    assert (signed["new"], signed["key"]) == (True, key["id"])
    assert ask("yank", "team/refunds@1.0.0", "--why", "wrong")["yanked"]
    twice = ask("yank", "team/refunds@1.0.0", "--why", "wrong")
    assert (twice["yanked"], twice["changed"]) == (True, False)
    assert ask("deprecate", "team/refunds@1.0.0", "--why", "old")["deprecated"]
    assert not ask("unyank", "team/refunds@1.0.0")["yanked"]
    rules = "rules.json"
    with open(rules, "w", encoding="utf-8") as stream:  # noqa: PTH123
        json.dump({"aliases": {"prod": {"metrics": ["accuracy>=0.9"]}}}, stream)
    assert ask("registry", "rules", "set", rules)["number"] == 1
    assert not ask("registry", "rules", "set", rules)["changed"]


def test_what_is_written_pulled_and_kept(ask: Callable[..., dict[str, Any]], cli: Cli) -> None:
    made = ask("init", "new.yaml")
    assert made["adapters"] == {"tone": "./tone"} and made["left_out"] == []
    cli("lock")
    pulled = ask("pull")
    assert [file["path"] for file in pulled["adapters"]["tone"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert all(file["sha256"] for file in pulled["base"])
    assert ask("cache", "verify")["findings"] == []
    assert ask("cache", "gc", "--max-size", "1GB")["deleted"] == []
    cli("bundle", "adapters.yaml", "out.oci.tar")
    written = ask("unpack", "out.oci.tar", "./here")
    assert (written["manifest"], written["new"]) == ("here/adapters.yaml", True)


def test_the_reference_lists_what_each_command_prints() -> None:
    from adapterdock.cli.reference import SCHEMAS

    listed = {command for commands, _, _ in SCHEMAS for command in commands.split(", ")}

    def named(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        if isinstance(command, Group):
            for name in command.list_commands(None):  # pyright: ignore[reportArgumentType]
                yield from named(command.get_command(None, name), (*path, name))  # pyright: ignore[reportArgumentType]
        else:
            yield " ".join(path)

    here = set(named(typer.main.get_command(app))) - {"schema", "serve"}
    assert here - {one.partition(" --")[0] for one in listed} == set()
