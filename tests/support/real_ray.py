"""A real Ray Serve, in an environment of its own that `make test-serving` makes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PYTHON = os.environ.get("ADAPTERDOCK_TEST_RAY", ".serving/ray/bin/python")
"""The interpreter of that environment."""
PORT = 8000
"""`serve run` has no option for another one."""
READY = 300.0
"""Seconds until the application must be ready."""


class RayServer:
    """`serve run adapterdock.serving.ray:app` on a cluster of this machine."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        """Start it in ``folder``, where its log is written."""
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", PORT))  # else another server would answer
        self.log = folder / "ray.log"
        program = Path(PYTHON).absolute().parent / "serve"
        kept = {n: v for n, v in os.environ.items() if not n.startswith("ADAPTERDOCK_")}
        variables = {**kept, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", **environment}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("nice", "-n", "10", str(program), "run", "adapterdock.serving.ray:app"),
                    *arguments,
                ],
                env=variables,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> RayServer:
        """Until the application answers."""
        end = time.monotonic() + READY
        while time.monotonic() < end and self.process.poll() is None:
            if self.send("/health")[0] == 200:
                return self
            time.sleep(0.5)
        self.stop()
        raise AssertionError(f"Ray did not become ready:\n{self.output[-4000:]}")

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Stop it as Ctrl-C does; its exit status."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait(60)

    def send(
        self, route: str, data: Mapping[str, Any] | None = None, key: str | None = None
    ) -> tuple[int, Any]:
        """The status and the body of an answer; 0 where nobody answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}{route}",
            None if data is None else json.dumps(data).encode(),
            {
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _read(error.read())
        except OSError:
            return 0, None


def _read(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")
