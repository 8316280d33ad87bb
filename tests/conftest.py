"""Shared by every test: an empty home and cache, and no network token, unless a test says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell makes a job in its background deaf to Ctrl-C, and so the commands that tests start there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that spin while they wait make tests on a busy machine many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["support.fixtures"]


@pytest.fixture(autouse=True)
def clean_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test has a cache of its own and none of the caller's settings."""
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(home / "cache"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    for name in ("ADAPTERDOCK_POLICY", "HF_TOKEN", "HF_HUB_OFFLINE", "ADAPTERDOCK_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ADAPTERDOCK_CONFIG", "XDG_CONFIG_HOME", "ADAPTERDOCK_FLEET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADAPTERDOCK_DEBUG", "0")  # `--debug` sets it, for the process
