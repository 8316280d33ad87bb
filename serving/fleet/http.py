"""One request to one replica: at one address, with an end in time and in bytes, and nowhere else.

Python's own client, because the Hub client's session follows the environment: it uses proxies,
which would see the key, and asks nobody where ``HF_HUB_OFFLINE`` is set. This one never redirects.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...registry.sources.pace import SlowError
from ...registry.sources.relay import within
from .address import Replica
from .answers import ANSWER_BYTES

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A status and a body that is complete."""

    status: int
    body: bytes


class NotAnsweredError(Exception):
    """There is no answer that can be used; the text says why."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason: str = reason
        self.hint: str | None = hint


def ask(
    replica: Replica,
    path: str,
    *,
    key: str | None = None,
    body: Any = None,
    seconds: float,
    limit: int = ANSWER_BYTES,
) -> Answer:
    """GET ``path``, or POST ``body`` as JSON to it.

    Everything together (names, connection, request, answer) takes at most ``seconds``, and at most
    ``limit`` bytes are read. The certificate is verified for the host's name, also where one
    address of it is asked. Raises :class:`NotAnsweredError`.
    """
    connection = (_Tls if replica.address.tls else _Plain)(replica, seconds)
    headers = {"Host": replica.host_header, "Accept": "application/json", "Connection": "close"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    content: bytes | None = None
    if body is not None:
        content = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"

    def call() -> Answer:
        method = "GET" if content is None else "POST"
        connection.request(method, replica.address.prefix + path, content, headers)
        return _read(connection.getresponse(), limit)

    try:
        return within(seconds, call)
    except SlowError:
        raise NotAnsweredError(f"no complete answer in {seconds:g} seconds") from None
    except ssl.SSLCertVerificationError as error:
        raise NotAnsweredError(
            f"its certificate is not valid for {replica.address.host}: {error.verify_message}",
            "Set SSL_CERT_FILE to the certificates of the authority that signed it.",
        ) from error
    except TimeoutError as error:
        raise NotAnsweredError(f"no answer in {seconds:g} seconds") from error
    except socket.gaierror as error:
        raise NotAnsweredError(f"the name {replica.address.host} has no address") from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise NotAnsweredError("it closed the connection without an answer") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise NotAnsweredError(f"cannot connect: {reason}") from error
    except http.client.IncompleteRead as error:  # in the middle of a chunk
        raise NotAnsweredError("its answer is cut off") from error
    except http.client.HTTPException as error:
        raise NotAnsweredError(f"it does not speak HTTP ({type(error).__name__})") from error
    finally:
        _end(connection)


def _read(response: http.client.HTTPResponse, limit: int) -> Answer:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > limit:
            raise NotAnsweredError(f"its answer has more than {limit} bytes")
    if response.length:  # what it announced and did not send
        raise NotAnsweredError("its answer is cut off")
    if 300 <= response.status < 400:
        raise NotAnsweredError(
            f"it redirects (HTTP {response.status}), and the key is sent to no other host",
            "Name the URL that it redirects to.",
        )
    return Answer(response.status, bytes(body))


def _end(connection: _Plain | _Tls) -> None:
    """Close it, also below a thread that is still reading: the connection itself forgets its socket
    as soon as an answer begins."""
    if connection.held is not None:
        with suppress(OSError):
            connection.held.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()


class _Plain(http.client.HTTPConnection):
    """To one address of a name."""

    def __init__(self, replica: Replica, seconds: float) -> None:
        super().__init__(replica.address.host, replica.address.port, timeout=seconds)
        self.held: socket.socket | None = None
        self._at: str = replica.ip or replica.address.host

    def connect(self) -> None:
        self.sock = self.held = socket.create_connection((self._at, self.port), self.timeout)


class _Tls(http.client.HTTPSConnection):
    """TLS to one address of a name, for the name."""

    def __init__(self, replica: Replica, seconds: float) -> None:
        super().__init__(replica.address.host, replica.address.port, timeout=seconds)
        self.held: socket.socket | None = None
        self._at: str = replica.ip or replica.address.host
        self._trusted: ssl.SSLContext = ssl.create_default_context()

    def connect(self) -> None:
        self.held = socket.create_connection((self._at, self.port), self.timeout)
        secure = self._trusted.wrap_socket(
            self.held, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = self.held = secure
        secure.do_handshake()
