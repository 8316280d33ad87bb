"""Logins for OCI registries, as docker keeps them: ``config.json`` and credential helpers.

See https://docs.docker.com/reference/cli/docker/login/ ("Credential stores").
"""

from __future__ import annotations

import binascii
import json
import os
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...manifests.bounds import MIB
from ...manifests.findings import registry as codes
from ...manifests.findings.errors import SourceError

HELPER_SECONDS = 30.0
"""How long a credential helper may take; some ask a cloud service."""
_CONFIG_BYTES = MIB
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_NOT_FOUND = "credentials not found"
_IDENTITY = "<token>"  # the user name that docker stores an identity token under
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Login:
    """A user and password, or an identity token (OAuth 2's refresh token)."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)


class InvalidLoginError(ValueError):
    """The configuration is invalid; the text says why, without secrets."""


def login_for(host: str) -> Login | None:
    """The user's login for a host, or ``None``.

    Raises:
        SourceError: The configuration has one that cannot be used (AD891).
    """
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"
    try:
        raw = path.open("rb").read(_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:
        raise _unusable(host, f"{path} cannot be read ({type(error).__name__})") from error
    try:
        config = parse_config(raw)
        helper = helper_for(config, host)
        return stored_login(config, host) if helper is None else _asked(helper, host)
    except InvalidLoginError as error:
        raise _unusable(host, f"{path}: {error}") from None


def parse_config(raw: bytes) -> Mapping[str, Any]:
    """Docker's configuration. Raises :class:`InvalidLoginError`."""
    try:
        config = json.loads(raw) if len(raw) <= _CONFIG_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidLoginError("it is not a JSON object")
    return config


def helper_for(config: Mapping[str, Any], host: str) -> str | None:
    """The credential helper that knows a host's login, or ``None``. Raises
    :class:`InvalidLoginError` for a name that is not that of a helper."""
    helpers = _mapping(config, "credHelpers")
    key = next((key for key in helpers if _host_of(key) == host), None)
    name = config.get("credsStore") if key is None else helpers[key]
    if not name:
        return None
    if not isinstance(name, str) or not _HELPER.match(name):
        raise InvalidLoginError(f"invalid name of a credential helper: {str(name)[:100]!r}")
    return name


def stored_login(config: Mapping[str, Any], host: str) -> Login | None:
    """The login that the configuration itself has. Raises :class:`InvalidLoginError`."""
    for key, found in _mapping(config, "auths").items():
        if _host_of(key) != host:
            continue
        if not isinstance(found, dict):
            raise InvalidLoginError(f"auths[{key[:100]!r}] is not a mapping")
        if any(not isinstance(text, str) for name, text in found.items() if name in _FIELDS):
            raise InvalidLoginError(f"auths[{key[:100]!r}] has a value that is not a text")
        token = found.get("identitytoken") or None
        if found.get("auth"):
            user, password = _decoded(found["auth"], key)
        else:
            user, password = found.get("username", ""), found.get("password", "")
        return Login(user, password, token) if token or user else None
    return None


_FIELDS = ("auth", "identitytoken", "username", "password")


def _decoded(text: str, key: str) -> tuple[str, str]:
    try:
        user, colon, password = b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        user, colon, password = "", "", ""
    if not colon:
        raise InvalidLoginError(f"auths[{key[:100]!r}].auth is not a user and a password")
    return user, password.rstrip("\0")


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise InvalidLoginError(f"{key} is not a mapping")
    return found


def _host_of(key: str) -> str:
    """The host that a key of ``auths`` is about: docker has written URLs too."""
    if key == _DOCKER_HUB_KEY:
        return _DOCKER_HUB
    return re.sub(r"\Ahttps?://", "", key).partition("/")[0]


def _asked(helper: str, host: str) -> Login | None:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        raise _unusable(host, f"docker-credential-{helper} is not installed")
    server = _DOCKER_HUB_KEY if host == _DOCKER_HUB else host
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"docker-credential-{helper} did not answer within {HELPER_SECONDS:g} s"
        raise _unusable(host, why) from None
    except OSError as error:
        why = f"docker-credential-{helper} cannot be started ({type(error).__name__})"
        raise _unusable(host, why) from error
    if done.returncode:
        if _NOT_FOUND in done.stdout.decode(errors="replace").lower():
            return None
        raise _unusable(host, f"docker-credential-{helper} failed (exit {done.returncode})")
    try:
        return read_answer(done.stdout)
    except InvalidLoginError as error:
        raise _unusable(host, f"docker-credential-{helper}: {error}") from None


def read_answer(raw: bytes) -> Login | None:
    """The login in a helper's answer. Raises :class:`InvalidLoginError`."""
    found = parse_config(raw)
    user, secret = found.get("Username", ""), found.get("Secret", "")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise InvalidLoginError("its answer has no user and secret")
    if user == _IDENTITY:
        return Login(identity_token=secret)
    return Login(user, secret) if user else None


def _unusable(host: str, why: str) -> SourceError:
    return SourceError(
        codes.DOCKER_LOGIN_UNUSABLE.finding(f"Cannot use docker's login for {host}: {why}")
    )
