"""A server that speaks the Hub's protocol to the real ``huggingface_hub`` client.

The ``hub`` fixture starts one per test and points the client at it, by environment variables (for
subprocesses and for us) and in the client's constants (which it read at import)::

    def test_x(hub, tmp_path):
        commit = hub.commit("acme/tone", {"adapter_config.json": b"{}", "w.safetensors": b"..."})
        folder = open_source(Source.parse("hf://acme/tone"), directory=tmp_path)

Files whose name ends in ``.safetensors`` or ``.bin`` are LFS: their GET answers 302 to another
host name (``localhost`` for ``127.0.0.1``), as the Hub does. ``hub.commit`` moves ``main`` (or
``branch=``) and returns the commit; earlier commits stay. ``hub.gated``, ``hub.disabled`` and
``hub.private`` hold repository ids; ``hub.tokens`` are the tokens that open private and gated ones.
``hub.fail(mode, path=...)`` breaks GETs of matching content: ``truncate`` (announces all, sends
half), ``endless-redirection`` (of a file), ``drop`` (closes in the middle, then works),
``ignore-range``, ``wrong-range``, ``other-commit``, ``forged`` (other bytes over Xet), ``slow``
(never answers), a mode of ``web.send_strangely``, or a status number such as 500 or 429.
``hub.writers`` are tokens with the namespaces that they may write to (see ``hub_writing.py``).
``hub.requests`` lists what came in and ``hub.bytes_sent`` counts content bytes. With ``hub.xet``
LFS files are offered over Xet too (huggingface.co/docs/xet: a file is one xorb of plain chunks),
under ``/xet/``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from .hub_repo import Repo, blob_id, is_lfs, sibling, tree_row
from .hub_writing import HubWriting
from .web import Server, parse_range, send_strangely

STRANGE = (
    "stall",
    "silent",
    "drip",
    "steady",
    "cut",
    "short",
    "other",
    "endless",
    "gzip",
    "bomb",
    "junk",
)


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    host: str
    headers: Mapping[str, str]


class HubServer:
    """The Hub, as far as our client uses it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.gated: set[str] = set()
        self.disabled: set[str] = set()
        self.private: set[str] = set()
        self.tokens: set[str] = set()
        self.writers: dict[str, tuple[str, ...]] = {}
        self.writing = HubWriting(self)
        self.xet = False
        self.requests: list[Request] = []
        self.bytes_sent = 0
        self.failures: list[tuple[str | int, str, list[int]]] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"hub": self})
        self._server = Server(("127.0.0.1", 0), handler)
        # `localhost` may resolve to ::1 first; the client then falls back to 127.0.0.1.
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, repo: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """Make ``files`` the whole content of ``branch``; the new commit's hash."""
        return self.repos.setdefault(repo, Repo(repo)).commit(files, branch)

    def is_known(self, token: str) -> bool:
        """Whether it is a token of somebody; without any, each is."""
        known = self.tokens | self.writers.keys()
        return not known or token in known

    def may_read(self, repo: str, token: str) -> bool:
        own = repo.partition("/")[0] in self.writers.get(token, ())
        return repo not in self.private or token in self.tokens or own

    def tag(self, repo: str, name: str, commit: str) -> None:
        self.repos[repo].refs[name] = commit

    def fail(self, mode: str | int, path: str = "", times: int = 1_000_000) -> None:
        """Break the next ``times`` answers whose URL path contains ``path``."""
        self.failures.append((mode, path, [times]))

    def heal(self) -> None:
        self.failures.clear()

    def count(self, part: str = "", method: str = "") -> int:
        """How many requests had ``part`` in their path (and this method)."""
        return sum(part in r.path and r.method.startswith(method) for r in self.requests)

    def failure_for(self, path: str, *modes: str | int) -> str | int | None:
        with self.lock:
            for mode, part, left in self.failures:
                wanted = mode in modes or (not modes and isinstance(mode, int))
                if wanted and part in path and left[0] > 0:
                    left[0] -= 1
                    return mode
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path
        host = self.headers.get("Host", "")
        self.hub.requests.append(Request(self.command, path, host, dict(self.headers)))
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.failure_for(path, "slow"):
            self.hub.stopping.wait(60)
            self.close_connection = True
            return
        status = self.hub.failure_for(path)
        if isinstance(status, int):
            headers = {"Retry-After": "7"} if status == 429 else {}
            self._error(status, "", "the server is not well", headers)
            return
        query = parse_qs(parts.query)
        with self.hub.lock:
            told = self.hub.writing.answer(self.command, path, query, self._token(), self.sent)
        if told is not None and told.status == 200:
            self._json(told.body, told.headers)
        elif told is not None:
            self._answer(told.status, told.body, told.headers)
        elif path.startswith("/xet/"):
            self._xet(path)
        elif path.startswith("/lfs/"):
            self._content(bytes.fromhex(path.removeprefix("/lfs/").split("/")[0]))
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), query)
        else:
            self._resolve(path.lstrip("/"))

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if name in self.hub.disabled and repo is not None:
            self._error(403, "", "Access to this resource is disabled.")
            return None
        token = self._token()
        if token and not self.hub.is_known(token):
            self._error(401, "", "Invalid credentials in Authorization header")
            return None
        if repo is None or not self.hub.may_read(name, token):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit

    def _api(self, path: str, query: Mapping[str, list[str]]) -> None:
        steps = path.split("/")
        name, rest = "/".join(steps[:2]), steps[2:]
        repo = self._repo(name)
        if repo is None:
            return
        if rest[:1] == ["xet-read-token"]:
            where = f"{self.hub.endpoint}/xet"
            told = {"accessToken": "t", "exp": 2**33, "casUrl": where}
            self._json(
                told,
                {
                    "X-Xet-Cas-Url": where,
                    "X-Xet-Access-Token": "t",
                    "X-Xet-Token-Expiration": str(2**33),
                },
            )
            return
        if rest[:1] == ["refs"]:
            rows = [{"name": n, "ref": n, "targetCommit": c} for n, c in repo.refs.items()]
            self._json({"branches": rows, "converts": [], "tags": []})
            return
        revision = unquote(rest[1]) if len(rest) > 1 else "main"
        commit = self._commit(repo, revision)
        if commit is None:
            return
        files = repo.commits[commit]
        if rest and rest[0] in ("tree", "paths-info"):
            wanted = [n for n in files if n.startswith("/".join(rest[2:]))]
            if rest[0] == "paths-info":
                asked = parse_qs(self.sent.decode()).get("paths", [])
                wanted = [n for n in files if n in asked]
            self._json([tree_row(n, files[n]) for n in sorted(wanted)])
            return
        blobs = query.get("blobs") is not None
        siblings = [sibling(n, files[n], blobs) for n in sorted(files)]
        gated = "auto" if name in self.hub.gated else False
        known = {"id": name, "modelId": name, "sha": commit, "gated": gated}
        self._json({**known, "siblings": siblings})

    def _resolve(self, path: str) -> None:
        steps = path.split("/")
        if len(steps) < 5 or steps[2] != "resolve":
            self._error(404, "EntryNotFound", "no such route")
            return
        name, revision, file = "/".join(steps[:2]), unquote(steps[3]), unquote("/".join(steps[4:]))
        repo = self._repo(name)
        if repo is None:
            return
        token = self._token()
        if name in self.hub.gated and token not in self.hub.tokens:
            self._error(403 if token else 401, "GatedRepo", "Access to this model is restricted")
            return
        commit = self._commit(repo, revision)
        if commit is None:
            return
        content = repo.commits[commit].get(file)
        shown = "0" * 40 if self.hub.failure_for(path, "other-commit") else commit
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": shown})
            return
        if not is_lfs(file):
            self._content(content, {"X-Repo-Commit": shown, "ETag": f'"{blob_id(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("X-Repo-Commit", shown)
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        if self.hub.xet:
            token = f"{self.hub.endpoint}/api/models/{name}/xet-read-token/{commit}"
            self.send_header("X-Xet-Hash", digest)
            self.send_header("Link", f'<{token}>; rel="xet-auth"')
        place = (name + "\0" + commit + "\0" + file).encode().hex()
        self.send_header(
            "Location", f"http://localhost:{self.hub.port}/lfs/{place}/{file}?Signature=s3cr3t"
        )
        self._end_redirection()

    def _end_redirection(self) -> None:
        if self.hub.failure_for(self.path, "endless-redirection") is None:
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            while not self.hub.stopping.is_set():
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                with self.hub.lock:
                    self.hub.bytes_sent += 1 << 16
        except OSError:
            return

    def _content(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        if headers is None:
            name, commit, file = content.decode().split("\0")
            content = self.hub.repos[name].commits[commit][file]
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        total = len(content)
        span = parse_range(self.headers.get("Range"), total)
        get = self.command == "GET"
        if span is not None and get and self.hub.failure_for(self.path, "ignore-range"):
            span = None
        if span is not None and get and self.hub.failure_for(self.path, "wrong-range"):
            span = (span[0] + 1, span[1])
        if span is not None and span[0] >= total:
            self._error(416, "", "range", {"Content-Range": f"bytes */{total}"})
            return
        body = content if span is None else content[span[0] : span[1] + 1]
        strange = self.hub.failure_for(self.path, *STRANGE) if get else None
        if strange is not None:
            told = dict(headers)
            if span is not None:
                told["Content-Range"] = f"bytes {span[0]}-{span[1]}/{total}"
            sent = send_strangely(self, str(strange), body, told, self.hub.stopping)
            with self.hub.lock:
                self.hub.bytes_sent += sent
            return
        self.send_response(200 if span is None else 206)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if span is not None:
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1]}/{total}")
        self.end_headers()
        if not get:
            return
        if self.hub.failure_for(self.path, "truncate", "drop"):
            body = body[: len(body) // 2]
            self.close_connection = True
        self._send(body)

    def _send(self, body: bytes) -> None:
        try:
            for at in range(0, len(body), 1 << 16):
                piece = body[at : at + (1 << 16)]
                with self.hub.lock:
                    self.hub.bytes_sent += len(piece)
                self.wfile.write(piece)
        except OSError:  # the client had enough
            self.close_connection = True

    def _xet(self, path: str) -> None:
        """What the storage behind Xet answers: how a file is made up, or the xorb itself."""
        digest = path.rpartition("/")[2]
        content = next(
            data
            for repo in self.hub.repos.values()
            for files in repo.commits.values()
            for data in files.values()
            if hashlib.sha256(data).hexdigest() == digest
        )
        if self.hub.failure_for(path, "forged"):
            content = content[::-1]
        pieces = [content[at : at + (1 << 16)] for at in range(0, len(content), 1 << 16)]
        xorb = b"".join(
            b"\0" + len(p).to_bytes(3, "little") + b"\0" + len(p).to_bytes(3, "little") + p
            for p in pieces
        )
        if "/xorb/" in path:
            self._content(xorb, {})
            return
        if "/v1/reconstructions/" not in path:
            self._error(404, "", "no such route")
            return
        chunks = {"start": 0, "end": len(pieces)}
        url = f"{self.hub.endpoint}/xet/xorb/{digest}"
        part = {"range": chunks, "url": url, "url_range": {"start": 0, "end": len(xorb) - 1}}
        self._json(
            {
                "offset_into_first_range": 0,
                "terms": [{"hash": digest, "unpacked_length": len(content), "range": chunks}],
                "fetch_info": {digest: [part]},
            }
        )

    def _json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        strange = self.hub.failure_for(self.path, *STRANGE)
        if strange is not None:
            sent = send_strangely(self, str(strange), body, {}, self.hub.stopping)
            with self.hub.lock:
                self.hub.bytes_sent += sent
            return
        self._answer(200, value, headers or {})

    def _error(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        about = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._answer(status, {"error": message}, {**about, **(headers or {})})

    def _answer(self, status: int, value: object, headers: Mapping[str, str]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, told in headers.items():
            self.send_header(key, told)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def point_client_at(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Make the Hub's client, here and in subprocesses, use this endpoint and this HF_HOME."""
    from huggingface_hub import close_session, constants, hf_api

    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)  # behind `huggingface_hub.file_exists`
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    _forget_endpoint()


def _forget_endpoint() -> None:
    """transformers keeps one client, with the endpoint of the first call."""
    if (hub := sys.modules.get("transformers.utils.hub")) is not None:
        hub.__dict__["_hf_api"] = None


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubServer]:
    """A fresh Hub with nothing in it, which the client talks to; see the module's docstring."""
    server = HubServer()
    point_client_at(monkeypatch, server.endpoint, tmp_path_factory.mktemp("hf"))
    try:
        yield server
    finally:
        server.close()
        from huggingface_hub import close_session

        close_session()
        _forget_endpoint()
