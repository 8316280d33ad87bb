"""`adapterdock bundle`, `unpack` and `pull --from`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def locked(at_desk: Path, cli: Cli) -> Path:
    assert cli("lock").exit_code == 0
    return at_desk


def test_a_set_up_is_packed_unpacked_and_pulled(locked: Path, cli: Cli) -> None:
    done = cli("bundle", "adapters.yaml", "../out.oci.tar", "--with-base")
    assert done.exit_code == 0, done.stderr
    assert "Wrote ../out.oci.tar: 8 files" in done.stdout
    assert "with the base" in done.stdout
    for expected in ("Wrote 11 files into ../there", "../there has these 11 files already"):
        done = cli("unpack", "../out.oci.tar", "../there")
        assert done.exit_code == 0, done.stderr
        assert expected in done.stdout
        assert "adapterdock pull ../there/adapters.yaml --from ../out.oci.tar" in done.stdout
    done = cli("pull", "../there/adapters.yaml", "--from", "../out.oci.tar", "--frozen")
    assert done.exit_code == 0, done.stderr
    assert "there/adapters/a0" in done.stdout


def test_its_result_as_data(locked: Path, cli: Cli) -> None:
    planned = json.loads(cli("bundle", "adapters.yaml", "o.tar", "--dry-run", "--json").stdout)
    assert (planned["written"], planned["digest"], planned["base"]) == (False, None, False)
    assert not Path("o.tar").exists()
    done = json.loads(cli("bundle", "adapters.yaml", "o.tar", "--json").stdout)
    assert done["schema"] == "adapterdock.bundle/1"
    assert (done["written"], done["files"]) == (True, planned["files"])
    assert done["digest"].startswith("sha256:")
    assert "nothing was written" in cli("bundle", "adapters.yaml", "o.tar", "--dry-run").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("bundle", "nothing.yaml", "out.tar"), 2, "AD901"),
        (("bundle", "adapters.yaml", "adapters.lock"), 2, "AD899"),
        (("bundle", "adapters.yaml", "no/such/folder/out.tar"), 2, "AD909"),
        (("bundle", "adapters.yaml", "no/such/out.tar", "--dry-run"), 2, "AD909"),
        (("bundle", "adapters.yaml", "adapters.yaml/out.tar"), 2, "AD909"),
        (("bundle", "adapters.yaml", "out.tar", "--policy", "nothing"), 2, "AD1"),
        (("unpack", "adapters.yaml", "there"), 1, "AD888"),
        (("unpack", "nothing.tar", "there"), 1, "AD201"),
        (("pull", "--from", "nothing.tar"), 1, "AD201"),
        (("pull", "--from", "adapters.yaml"), 1, "AD888"),
    ],
)
def test_what_cannot_be_done_is_a_finding(
    locked: Path, cli: Cli, arguments: tuple[str, ...], status: int, code: str
) -> None:
    result = cli(*arguments)
    assert (result.exit_code, code in result.stderr) == (status, True), result.stderr


def test_without_a_lock_nothing_is_packed_or_taken(at_desk: Path, cli: Cli) -> None:
    for arguments in (("bundle", "adapters.yaml", "o.tar"), ("pull", "--from", "o.tar")):
        result = cli(*arguments)
        assert (result.exit_code, "AD504" in result.stderr) == (1, True), result.stderr
