"""`adapterdock key new`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.registry.signatures.keys import load_public_key
from adapterdock.registry.signatures.signer import open_signer
from typer.testing import Result

Cli = Callable[..., Result]


def test_key_new_writes_a_pair_and_prints_its_id(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "team.key"
    result = cli("key", "new", path)
    assert result.exit_code == 0
    key = load_public_key(f"{path}.pub", tmp_path)
    assert f"Key id {key.id}" in result.output
    assert open_signer(str(path)).key == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_key_new_encrypts_with_the_passphrase_of_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("open sesame\n")
    assert cli("key", "new", tmp_path / "k", "--passphrase-file", tmp_path / "p").exit_code == 0
    assert b"ENCRYPTED" in (tmp_path / "k").read_bytes()
    assert open_signer(str(tmp_path / "k"), b"open sesame")


@pytest.mark.parametrize("extra", [(), ("--passphrase-file", "missing")])
def test_key_new_refuses_and_writes_nothing(
    cli: Cli, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    path = tmp_path / "k"
    if not extra:
        path.write_text("mine")
    result = cli("key", "new", path, *extra)
    assert result.exit_code == 2
    assert ("AD881" if extra else "AD883") in result.stderr
    assert not (tmp_path / "k.pub").exists()


def test_without_the_extra_key_new_says_what_to_install(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    result = cli("key", "new", tmp_path / "k")
    assert result.exit_code == 2
    assert "pip install 'adapterdock[sign]'" in result.stderr
    assert [*tmp_path.iterdir()] == []
