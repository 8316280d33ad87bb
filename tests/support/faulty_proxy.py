"""A web server in front of another one, which loses answers or answers by itself."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from .web import Server

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_CODES = {"409": "ConditionalRequestConflict", "500": "InternalError", "503": "SlowDown"}


class FaultyProxy:
    """``faults`` are what happens to the next PUTs: ``lost`` (passed on, never answered), ``409``,
    ``500``, ``503`` (answered so, not passed on), ``accepted`` (answered 200, not passed on),
    ``dropped`` (neither answered nor passed on), ``cut`` (the answer ends in its middle), ``late``
    (passed on after half a second), ``fine``. ``always`` happens to every PUT after them.
    ``others`` are the same for the next requests of another method, such as ``GET``. ``requests``
    are methods and paths."""

    def __init__(self, target: str) -> None:
        self.target: str = urlsplit(target).netloc
        self.faults: list[str] = []
        self.always = "fine"
        self.others: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    def next_fault(self, method: str) -> str:
        if method != "PUT":
            planned = self.others.get(method)
            return planned.pop(0) if planned else "fine"
        return self.faults.pop(0) if self.faults else self.always


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    """A proxy that runs in front of ``target``, a URL without a path."""
    proxy = FaultyProxy(target)
    server = Server(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append((self.command, self.path))
        fault = self.proxy.next_fault(self.command)
        if fault in _CODES:
            error = f"<Error><Code>{_CODES[fault]}</Code><Message>A test.</Message></Error>"
            self._send(int(fault), {"Content-Type": "application/xml"}, error.encode())
            return
        if fault == "accepted":
            self._send(200, {"ETag": '"0"'}, b"")
            return
        if fault == "dropped":
            self.close_connection = True
            return
        if fault == "late":
            time.sleep(0.5)
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        connection.close()
        if fault == "lost":
            self.close_connection = True
            return
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        if fault == "cut":
            headers["Content-Length"] = str(len(content))
            content = content[: len(content) // 2]
            self.close_connection = True
        self._send(answer.status, headers, content)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()
