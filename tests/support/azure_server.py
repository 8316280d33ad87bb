"""Azure's blob storage as Microsoft emulates it (azurite, from npm), started once per session.

The ``azure`` fixture sets AZURE_STORAGE_CONNECTION_STRING, so that ``az://container/...`` just
works. azurite is looked for in ``$ADAPTERDOCK_AZURITE``, else in the virtual environment, else on
the path. If it is nowhere, npm installs it; a test fails where npm cannot. So only tests that are
marked ``registries`` may ask for it: ``make test`` leaves them out, ``make test-registries`` runs
them.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""azurite's own, which everybody knows."""
VERSION = "3.37.0"


class AzureServer:
    """The service's connection string, and new containers."""

    def __init__(self, port: int) -> None:
        self.connection = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )
        self._numbers = itertools.count()

    def container(self) -> str:
        """A new container's name."""
        client = self._client()
        name = f"container-{next(self._numbers)}"
        client.create_container(name)
        client.close()
        return name

    @cached_property
    def shared(self) -> str:
        """One container for tests that keep to a folder of their own."""
        return self.container()

    def _client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection)


def _program() -> Path:
    """azurite's program, which npm installs where there is none."""
    home = Path(os.environ.get("ADAPTERDOCK_AZURITE", Path(sys.prefix) / "azurite"))
    installed = home / "node_modules" / ".bin" / "azurite-blob"
    if found := (installed if installed.exists() else shutil.which("azurite-blob")):
        return Path(found)
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("azurite needs npm: install Node.js, or name azurite in ADAPTERDOCK_AZURITE")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may come here together
        if not installed.exists():
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", f"azurite@{VERSION}"],
                cwd=home,
                capture_output=True,
                text=True,
                timeout=300,
            )
            if done.returncode or not installed.exists():
                pytest.fail(f"npm cannot install azurite: {done.stderr[-300:]}")
    return installed


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """The running service."""
    folder = tmp_path_factory.mktemp("azurite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(str(_program()), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--location", str(folder), "--silent", "--skipApiVersionCheck", "--disableTelemetry"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_ready(port, process, folder / "log")
        yield AzureServer(port)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"azurite did not start:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def azure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AzureServer:
    """The running service, with the environment set so that az:// URLs mean it."""
    assert request.node.get_closest_marker("registries"), "mark this test `registries`"
    azure_server: AzureServer = request.getfixturevalue("azure_server")
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_server.connection)
    return azure_server
