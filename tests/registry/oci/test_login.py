"""Docker's logins: its configuration and its credential helpers."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.registry.oci import login as oci_login
from adapterdock.registry.oci.login import (
    InvalidLoginError,
    Login,
    helper_for,
    login_for,
    parse_config,
    read_answer,
    stored_login,
)
from hypothesis import given
from hypothesis import strategies as some


def coded(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def configure(docker: Path, config: Any) -> None:
    (docker / "config.json").write_text(json.dumps(config))


def helper(docker: Path, script: str) -> None:
    program = docker / "docker-credential-toy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_without_a_configuration_there_is_no_login(docker: Path) -> None:
    assert login_for("a.example") is None
    configure(docker, {})
    assert login_for("a.example") is None


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("a.example", "a.example"),
        ("a.example:5000", "a.example:5000"),
        ("https://a.example/v1/", "a.example"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_a_stored_login_is_that_of_its_host_only(docker: Path, key: str, host: str) -> None:
    configure(docker, {"auths": {key: {"auth": coded("me:se:cret")}, "b": {"auth": coded("x:y")}}})
    assert login_for(host) == Login("me", "se:cret")
    assert login_for("example") is None
    assert login_for("a.example.evil") is None


def test_an_identity_token_is_a_login(docker: Path) -> None:
    configure(docker, {"auths": {"a": {"auth": coded("me:"), "identitytoken": "refresh"}}})
    assert login_for("a") == Login("me", "", "refresh")
    configure(docker, {"auths": {"a": {}}})
    assert login_for("a") is None


def test_a_helper_is_asked_for_its_host(docker: Path) -> None:
    configure(docker, {"credHelpers": {"a": "toy"}, "auths": {"a": {"auth": coded("not:this")}}})
    helper(docker, """read -r host; printf '{"Username":"%s","Secret":"s"}' "$1 $host" """)
    assert login_for("a") == Login("get a", "s")
    assert login_for("b") is None


def test_the_store_of_all_logins_is_a_helper_too(docker: Path) -> None:
    configure(docker, {"credsStore": "toy"})
    helper(docker, """printf '{"Username":"<token>","Secret":"refresh"}'""")
    assert login_for("a") == Login(identity_token="refresh")
    helper(docker, "echo 'credentials not found in native keychain'; exit 1")
    assert login_for("a") is None


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3", "exit 3"),
        ("echo no json", "JSON"),
        ("""echo '{"Username": 1}'""", "user"),
        ("sleep 20", "within"),
    ],
)
def test_a_helper_that_fails_is_named_and_ends_in_time(
    docker: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(oci_login, "HELPER_SECONDS", 0.5)
    configure(docker, {"credHelpers": {"a": "toy"}})
    helper(docker, script)
    with pytest.raises(SourceError, match=says) as caught:
        login_for("a")
    assert caught.value.code == "AD891"
    assert "docker-credential-toy" in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "../toy", "a b", "", 1])
def test_a_helper_that_is_missing_or_a_path_is_not_started(docker: Path, name: object) -> None:
    helper(docker, f"touch {docker}/started")
    configure(docker, {"credHelpers": {"a": name}})
    if name:
        with pytest.raises(SourceError) as caught:
            login_for("a")
        assert caught.value.code == "AD891"
    else:
        assert login_for("a") is None
    assert not (docker / "started").exists()


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"auths": [1]},
        {"auths": {"a": 1}},
        {"auths": {"a": {"auth": "???"}}},
        {"auths": {"a": {"auth": coded("secret-without-colon")}}},
        {"auths": {"a": {"auth": 1}}},
        {"auths": {"a": {"username": 1}}},
        {"credHelpers": 1},
    ],
)
def test_an_invalid_configuration_is_refused_without_its_secrets(docker: Path, config: Any) -> None:
    configure(docker, config)
    with pytest.raises(SourceError) as caught:
        login_for("a")
    assert caught.value.code == "AD891"
    assert "secret-without-colon" not in str(caught.value)
    assert coded("secret-without-colon") not in str(caught.value)


def test_a_login_does_not_show_its_secrets() -> None:
    assert "secret" not in repr(Login("me", "secret", "secret"))


_KEYS = some.sampled_from(["auths", "credHelpers", "credsStore", "a", "auth", "identitytoken"])
_JSON = some.recursive(
    some.none() | some.booleans() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=2) | some.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(some.dictionaries(_KEYS, _JSON, max_size=4))
def test_any_configuration_gives_a_login_none_or_a_refusal(config: dict[str, Any]) -> None:
    raw = json.dumps(config).encode()
    try:
        name = helper_for(parse_config(raw), "a")
        login = stored_login(parse_config(raw), "a")
    except InvalidLoginError:
        return
    assert name is None or "/" not in name
    assert login is None or isinstance(login.user, str)


@given(some.binary(max_size=60))
def test_any_answer_of_a_helper_is_refused_or_a_login(raw: bytes) -> None:
    try:
        read_answer(raw)
    except InvalidLoginError:
        return
