"""Debian's ``docker-registry``: the reference implementation of the OCI distribution protocol.

The program is looked for in ``$ADAPTERDOCK_DOCKER_REGISTRY``, else on the path. Only tests that are
marked ``registries`` may ask for it (``make test-registries``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MISSING = (
    "docker-registry is missing. As root: apt-get install docker-registry. Else: "
    "apt-get download docker-registry && dpkg -x docker-registry_*.deb root, and "
    "ADAPTERDOCK_DOCKER_REGISTRY=$PWD/root/usr/bin/docker-registry"
)
USER = ("me", "secret:word")
_HTPASSWD = "me:$2b$04$ajV3fUH.MUyaF.3SQ4TB8eRnukjZeUoroFsV.ipb88SxKaPR2cur.\n"
"""That user and password."""


class DockerRegistry:
    """``host`` is its name and port; ``folder`` is where it keeps what it has."""

    def __init__(self, host: str, folder: Path) -> None:
        self.host = host
        self.folder = folder

    def blob_file(self, digest: str) -> Path:
        """Where it keeps a content."""
        hex_ = digest.removeprefix("sha256:")
        blobs = self.folder / "docker/registry/v2/blobs/sha256"
        return blobs / hex_[:2] / hex_ / "data"


@pytest.fixture(params=["open", "with a password"])
def docker_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DockerRegistry]:
    """An empty one: that lets everybody in, and that asks for :data:`USER`."""
    assert request.node.get_closest_marker("registries"), "mark this test `registries`"
    program = os.environ.get("ADAPTERDOCK_DOCKER_REGISTRY") or shutil.which("docker-registry")
    if program is None or not Path(program).exists():
        pytest.fail(MISSING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "docker-registry"
    folder.mkdir()
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if request.param != "open":
        (tmp_path / "htpasswd").write_text(_HTPASSWD)
        path = str(tmp_path / "htpasswd")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": path}}
    import yaml

    (tmp_path / "docker-registry.yml").write_text(yaml.safe_dump(config))
    with (tmp_path / "docker-registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(tmp_path / "docker-registry.yml")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_ready(port, process, tmp_path / "docker-registry.log")
        yield DockerRegistry(f"127.0.0.1:{port}", folder)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"docker-registry did not start:\n{log.read_text(errors='replace')[-2000:]}")
