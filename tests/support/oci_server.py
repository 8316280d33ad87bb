"""A small OCI registry (distribution-spec v1.1), which can be told to misbehave."""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest
from adapterdock.registry.files.digests import sha256_bytes

from .web import Server, parse_range, send_strangely

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests)/(?P<id>[^/]*)\Z")
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z"
)


class OciServer:
    """``blobs`` maps a digest to bytes, ``manifests`` a repository and a tag or digest to bytes.

    Switches: ``auth`` (``None``, ``basic`` or ``bearer``), ``user`` (user and password that may
    push), ``identity`` (a refresh token that is good for the same), ``anonymous_pull``, ``realm``
    (another URL of the token server), ``status`` (a number for each next request of a method and
    kind, such as ``PUT blobs/uploads``), ``headers`` (more for these), ``strange`` (modes of
    :func:`send_strangely`, one for each next GET of a blob), ``redirect`` (a URL before the path of
    each GET of a blob), ``ranges`` (whether Range is honoured), ``digest_header`` (what PUT and GET
    of a manifest name as its digest), ``relative`` (whether Location is), ``silent`` (no answer).
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.uploads: set[str] = set()
        self.auth: str | None = None
        self.user = ("me", "secret:word")
        self.identity: str | None = None
        self.anonymous_pull = False
        self.realm: str | None = None
        self.tokens: dict[str, str] = {}
        self.status: dict[str, list[int]] = {}
        self.headers: Mapping[str, str] = {}
        self.strange: list[str] = []
        self.redirect: str | None = None
        self.ranges = True
        self.digest_header: str | None = None
        self.relative = True
        self.silent = False
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.stopping = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"oci": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def count(self, method: str, kind: str) -> int:
        """How many requests of this kind came."""
        return sum(m == method and f"/{kind}/" in path for m, path, _ in self.requests)

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    oci: OciServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        oci, parts = self.oci, urlsplit(self.path)
        oci.requests.append((self.command, self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if oci.silent:
            oci.stopping.wait(60)
            self.close_connection = True
            return
        if parts.path == "/token":
            self._give_token(parts.query, body)
            return
        route = _ROUTE.match(parts.path)
        if route is None or not _NAME.match(route["name"]):
            self._error(404, "NAME_UNKNOWN")
            return
        name, kind, id = route["name"], route["kind"], route["id"]
        planned = oci.status.get(f"{self.command} {kind}")
        if planned:
            self._error(planned.pop(0), "DENIED", oci.headers)
            return
        if not self._is_allowed(name):
            self._challenge()
            return
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if kind == "manifests":
            self._manifest(name, id, body)
        elif kind == "blobs/uploads":
            self._upload(name, id, query, body)
        else:
            self._blob(id)

    def _is_allowed(self, name: str) -> bool:
        oci, pulls = self.oci, self.command in ("GET", "HEAD")
        sent = self.headers.get("Authorization", "")
        if oci.auth is None:
            return True
        if oci.auth == "basic":
            return sent == _basic(*oci.user) or (oci.anonymous_pull and pulls)
        scope = oci.tokens.get(sent.removeprefix("Bearer "), "")
        wanted = "pull" if pulls else "push"
        repository, _, actions = scope.removeprefix("repository:").rpartition(":")
        return repository == name and wanted in actions.split(",")

    def _challenge(self) -> None:
        oci = self.oci
        realm = oci.realm or f"{oci.url}/token"
        offered = {
            "basic": 'Basic realm="here, and there"',
            "bearer": f'Bearer realm="{realm}",service="the service",scope="x:y:pull"',
        }[oci.auth or "basic"]
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": offered})

    def _give_token(self, query: str, body: bytes) -> None:
        oci = self.oci
        form = {k: v[0] for k, v in parse_qs(query or body.decode()).items()}
        known = self.headers.get("Authorization") == _basic(*oci.user)
        if self.command == "POST":
            known = form.get("refresh_token") == oci.identity is not None
        actions = form["scope"].rpartition(":")[2].split(",")
        if not known and (not oci.anonymous_pull or "push" in actions):
            self._error(401, "UNAUTHORIZED")
            return
        assert form["service"] == "the service"
        token = uuid.uuid4().hex
        oci.tokens[token] = form["scope"]
        self._send(200, json.dumps({"token": token}).encode(), {})

    def _manifest(self, name: str, id: str, body: bytes) -> None:
        oci = self.oci
        if self.command == "PUT":
            listed = json.loads(body)
            missing = [
                one["digest"]
                for one in (listed["config"], *listed["layers"])
                if one["digest"] not in oci.blobs
            ]
            if missing:
                self._error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            digest = sha256_bytes(body)
            oci.manifests[name, id] = oci.manifests[name, digest] = body
            headers = {"Docker-Content-Digest": oci.digest_header or digest}
            self._send(201, b"", headers)
            return
        found = oci.manifests.get((name, id))
        if found is None:
            self._error(404, "MANIFEST_UNKNOWN")
            return
        digest = oci.digest_header or sha256_bytes(found)
        self._send(200, found, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest})

    def _upload(self, name: str, id: str, query: Mapping[str, str], body: bytes) -> None:
        oci = self.oci
        if self.command == "POST":
            upload = uuid.uuid4().hex
            oci.uploads.add(upload)
            place = f"/v2/{name}/blobs/uploads/{upload}?state=a%2Fb"
            self._send(202, b"", {"Location": place if oci.relative else oci.url + place})
            return
        if id not in oci.uploads or query.get("state") != "a/b":
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif sha256_bytes(body) != query.get("digest"):
            self._error(400, "DIGEST_INVALID")
        else:
            oci.uploads.remove(id)
            oci.blobs[query["digest"]] = body
            self._send(201, b"", {})

    def _blob(self, id: str) -> None:
        oci = self.oci
        body = oci.blobs.get(id)
        if oci.redirect is not None and self.command == "GET":
            self._send(307, b"", {"Location": oci.redirect + self.path})
            return
        if body is None:
            self._error(404, "BLOB_UNKNOWN")
            return
        headers: dict[str, str] = {}
        span = parse_range(self.headers.get("Range"), len(body)) if oci.ranges else None
        if span is not None:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{len(body)}"
            body = body[span[0] : span[1] + 1]
        mode = oci.strange.pop(0) if oci.strange and self.command == "GET" else ""
        if mode:
            send_strangely(self, mode, body, headers, oci.stopping)
        else:
            self._send(200 if span is None else 206, body, headers)

    def _error(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        errors = [{"code": code, "message": "as the server says"}]
        self._send(status, json.dumps({"errors": errors}).encode(), headers or {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body)
            except OSError:  # the client had enough
                self.close_connection = True


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def oci() -> Iterator[OciServer]:
    """An empty OCI registry."""
    server = OciServer()
    try:
        yield server
    finally:
        server.close()
