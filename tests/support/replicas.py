"""Replicas: small HTTP servers that answer as vLLM with our plugin does, or as they are told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.lockfile import Lock

from .web import Server, send_strangely

BASE = "base"
"""The name under which a replica serves its base."""


def digests_of(lock: Lock) -> dict[str, str]:
    """By adapter and composition, its digest."""
    every = {**lock.adapters, **lock.compositions}
    return {name: one.digest for name, one in every.items() if one.digest is not None}


def status_of(lock: Lock, **changes: Any) -> dict[str, Any]:
    """The status of a replica that serves what the lock pins."""
    digests = digests_of(lock)
    fingerprint = lock.base.fingerprint if lock.base else None
    row = {"revision": "", "size": 1000, "since": "2026-11-30T12:00:00Z"}
    return {
        "schema": "adapterdock.status/1",
        "engine": {"name": "vllm", "version": "0.32.0"},
        "manifest": {"location": "adapters.yaml", "sha256": "sha256:" + "0" * 64},
        "lock": {"sha256": "sha256:" + "1" * 64},
        "base": {
            "model": lock.base.source if lock.base else None,
            "fingerprint": fingerprint and fingerprint.model_dump(mode="json", exclude_none=True),
        },
        "state": "serving",
        "checked": "2026-11-30T12:00:30Z",
        "adapters": {name: {"digest": digest, **row} for name, digest in digests.items()},
        "wanted": digests,
        "findings": [],
        **changes,
    }


def models_of(digests: Mapping[str, str]) -> dict[str, Any]:
    """The list of models of vLLM 0.32 that serves our copies of these."""
    cards = [{"id": BASE, "root": "/models/base", "parent": None}]
    for name, digest in digests.items():
        folder = f"/cache/served/{digest.removeprefix('sha256:')}"
        cards.append({"id": name, "root": folder, "parent": BASE})
    common = {"object": "model", "created": 1796040000, "owned_by": "vllm"}
    return {"object": "list", "data": [{**common, **card} for card in cards]}


class ReplicaServer:
    """One replica.

    Attributes:
        answers: By path, the answer: data for JSON, bytes, an HTTP status, a mode of
            ``send_strangely``, or ``raw``: bytes that are no HTTP. Other paths are 404.
        says: The text that a completion of a model with a prompt has.
        key: The key that every request must have.
        redirect: Where every request is redirected to.
        requests: Method, path and headers of each request.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, cert: Path | None = None) -> None:
        self.answers: dict[str, Any] = {}
        self.says: Callable[[str, str], str] = lambda model, prompt: f"{model}: {prompt}"
        self.key: str | None = None
        self.redirect: str | None = None
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.stopping = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"replica": self})
        self._server = Server((host, port), handler)
        self.port: int = self._server.server_address[1]
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if cert is None else 's'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def serves(self, lock: Lock, **changes: Any) -> ReplicaServer:
        """Let it serve what the lock pins."""
        self.answers["/v1/adapterdock/status"] = status_of(lock, **changes)
        self.answers["/v1/models"] = models_of(digests_of(lock))
        return self

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    replica: ReplicaServer

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self._answer(self.replica.answers.get(self.path, 404))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        scripted = self.replica.answers.get(self.path)
        if self.path == "/v1/completions" and scripted is None:
            assert asked["temperature"] == 0
            text = self.replica.says(asked["model"], asked["prompt"])
            scripted = {"object": "text_completion", "choices": [{"index": 0, "text": text}]}
        self._answer(404 if scripted is None else scripted)

    def _answer(self, answer: Any) -> None:
        replica = self.replica
        replica.requests.append((self.command, self.path, dict(self.headers)))
        if replica.redirect is not None:
            self.send_response(302)
            self.send_header("Location", replica.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if replica.key is not None and self.headers["Authorization"] != f"Bearer {replica.key}":
            answer = 401
        if answer == "raw":
            self.wfile.write(b"\x00\x01 hello\r\n\r\n")
            self.close_connection = True
            return
        if isinstance(answer, str):
            send_strangely(self, answer, b'{"schema": ' * 50, {}, replica.stopping)
            return
        status = answer if isinstance(answer, int) else 200
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client had enough
            self.close_connection = True


@pytest.fixture
def replica() -> Iterator[Callable[..., ReplicaServer]]:
    """Makes replicas, which end with the test."""
    made: list[ReplicaServer] = []

    def make(*arguments: Any, **options: Any) -> ReplicaServer:
        made.append(ReplicaServer(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def certificate(folder: Path, name: str) -> Path:
    """A certificate for this name, signed by itself, with its key in the same file."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path
