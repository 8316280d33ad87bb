"""A plain web server over a mapping of paths, which can be told to misbehave."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


def parse_range(text: str | None, total: int) -> tuple[int, int] | None:
    """First and last byte of a single ``bytes=a-b`` (or ``a-``), cut at the file's end."""
    if text is None or not text.startswith("bytes="):
        return None
    first, _, last = text.removeprefix("bytes=").partition("-")
    return int(first), min(int(last) if last else total - 1, total - 1)


class Server(ThreadingHTTPServer):
    """As the library's, but it does not drop clients that come together."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a client that hangs up is what some tests are about


def send_strangely(
    handler: BaseHTTPRequestHandler,
    mode: str,
    body: bytes,
    headers: Mapping[str, str],
    stopping: threading.Event,
) -> int:
    """Answer 206 (200 without Content-Range) in a way that servers should not; the bytes sent.

    ``stall`` sends half and then nothing, ``silent`` nothing after the headers, ``drip`` 20 bytes a
    second, ``steady`` 40 kB a second, ``cut`` closes after half, ``short`` sends half and calls it
    all, ``other`` other bytes, ``endless`` goes on with zeros, ``gzip`` codes the body unasked,
    ``bomb`` does so with 64 MiB of zeros, ``junk`` says gzip of what is none, ``unended`` closes
    after all chunks but the last, which is empty.
    """
    handler.close_connection = True
    coded = mode in ("gzip", "bomb", "junk")
    kept = {k: v for k, v in headers.items() if not (coded and k == "Content-Range")}
    if mode == "short":
        body = body[: len(body) // 2]
    if mode == "other":
        body = body[::-1]
    if mode == "gzip":
        body = gzip.compress(body)
    if mode == "bomb":
        body = gzip.compress(bytes(64 << 20), 1)
    handler.send_response(206 if "Content-Range" in kept else 200)
    for key, value in kept.items():
        handler.send_header(key, value)
    if coded:
        handler.send_header("Content-Encoding", "gzip")
    chunked = coded or mode in ("endless", "short", "unended")
    if chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    else:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    sent = 0

    def send(piece: bytes) -> None:
        nonlocal sent
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        sent += len(piece)

    try:
        if mode in ("stall", "cut"):
            send(body[: len(body) // 2])
        if mode in ("stall", "silent"):
            handler.wfile.flush()
            stopping.wait(60)
        step, pause = {"drip": (1, 0.05), "steady": (4096, 0.1)}.get(mode, (1 << 16, 0.0))
        if mode not in ("stall", "silent", "cut"):
            for at in range(0, len(body), step):
                send(body[at : at + step])
                if pause and stopping.wait(pause):
                    return sent
        while mode == "endless" and not stopping.is_set():
            send(bytes(1 << 16))
        if chunked and mode != "unended":
            handler.wfile.write(b"0\r\n\r\n")
    except OSError:  # the client had enough
        pass
    return sent


class WebServer:
    """``files`` maps a path (``/a/b.json``) to its bytes.

    Switches: ``etags``, ``dates``, ``ranges`` (whether each is told or honoured), ``head`` (whether
    HEAD is allowed), ``catch_all`` (content type and body sent with 200 for unknown paths),
    ``truncate`` (announce all, send half, so many times), ``status`` (path to a status number),
    ``redirects`` (path to the URL that a 302 names),
    ``queries`` (an answer for URLs whose query starts so),
    ``strange`` (modes of :func:`send_strangely`, one for each next GET of more than one byte),
    ``auth`` (a required Authorization header), ``silent`` (never answers).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags = True
        self.dates = False
        self.ranges = True
        self.head = True
        self.lengths = True
        self.catch_all: tuple[str, bytes] | None = None
        self.truncate = 0
        self.status: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.queries: dict[str, tuple[int, bytes]] = {}
        self.strange: list[str] = []
        self.auth: str | None = None
        self.silent = False
        self.bytes_sent = 0
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.stopping = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"web": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        web = self.web
        path = unquote(urlsplit(self.path).path)
        web.requests.append((self.command, self.path, dict(self.headers)))
        if web.silent:
            web.stopping.wait(60)
            self.close_connection = True
            return
        status = web.status.get(path)
        if web.auth is not None and self.headers.get("Authorization") != web.auth:
            status = 401
        if self.command == "HEAD" and not web.head:
            status = 405
        body, kind = web.files.get(path), "application/octet-stream"
        if body is None and web.catch_all is not None:
            kind, body = web.catch_all
        for query, (code, answer) in web.queries.items():
            if urlsplit(self.path).query.startswith(query):
                self._send(code, answer, {"Content-Type": "application/xml"})
                return
        if path in web.redirects:
            self._send(302, b"", {"Location": web.redirects[path]})
            return
        if status is not None or body is None:
            self._send(status or 404, b"no", {"Content-Type": "text/plain"})
            return
        headers = {"Content-Type": kind}
        if web.etags:
            headers["ETag"] = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        if web.dates:
            headers["Last-Modified"] = "Sun, 22 Nov 2026 10:00:00 GMT"
        span = parse_range(self.headers.get("Range"), len(body)) if web.ranges else None
        if web.strange and self.command == "GET" and span != (0, 0):
            if span is not None:
                headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{len(body)}"
                body = body[span[0] : span[1] + 1]
            mode = web.strange.pop(0)
            web.bytes_sent += send_strangely(self, mode, body, headers, web.stopping)
            return
        if span is None:
            self._send(200, body, headers)
        else:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{len(body)}"
            self._send(206, body[span[0] : span[1] + 1], headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self.web.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if status < 300 and self.web.truncate > 0:
            self.web.truncate -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        try:
            for at in range(0, len(body), 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                self.web.bytes_sent += len(body[at : at + (1 << 16)])
        except OSError:  # the client had enough
            self.close_connection = True


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server with nothing on it."""
    server = WebServer()
    try:
        yield server
    finally:
        server.close()
