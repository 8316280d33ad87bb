"""Where replicas are asked: the values of ``--on``, and the addresses behind a name."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...registry.sources.pace import SlowError
from ...registry.sources.relay import within

MOST_REPLICAS = 1000
"""Addresses of one name that are asked."""

_DNS = "dns+"
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?\Z"
)
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*\Z")


@dataclass(frozen=True)
class Address:
    """One value of ``--on``.

    Args:
        url: As a person wrote it, without a slash at its end.
        tls: Whether it is asked by https.
        host: The name, for the ``Host`` header and for the server's certificate.
        port: Where it listens.
        prefix: The path before ``/v1/...``, without a slash at its end.
        every: Whether every address of the name is a replica of its own (``dns+``).
    """

    url: str
    tls: bool
    host: str
    port: int
    prefix: str = ""
    every: bool = False


@dataclass(frozen=True)
class Replica:
    """One server that is asked: an :class:`Address`, at ``ip`` if its name has several."""

    address: Address
    ip: str | None = None

    @property
    def name(self) -> str:
        """For a person: the URL, and the address where the name has several."""
        url = self.address.url.removeprefix(_DNS)
        return url if self.ip is None else f"{url} ({self.ip})"

    @property
    def host_header(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        usual = self.address.port == _PORTS["https" if self.address.tls else "http"]
        return host if usual else f"{host}:{self.address.port}"


def parse_address(text: str) -> Address:
    """The address that ``--on`` names. Raises :class:`UsageError` for anything but
    ``[dns+]http[s]://HOST[:PORT][/PATH]``."""
    every = text.startswith(_DNS)
    if not text.isprintable():  # Python would read http://a\nb as http://ab
        raise _invalid(text.rpartition("@")[2], "a character that cannot be printed")
    try:
        parts = urlsplit(text.removeprefix(_DNS))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _invalid(text, "it is not a URL") from None
    if parts.scheme not in _PORTS:
        raise _invalid(
            text, f"unknown scheme {parts.scheme[:40]!r}" if parts.scheme else "no scheme"
        )
    if "@" in parts.netloc:
        raise _invalid(
            text.rpartition("@")[2],  # what is before it may be a password
            "a user or a password in the URL",
            "Set the key in ADAPTERDOCK_FLEET_KEY, or name its file with --key-file.",
        )
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise _invalid(text.partition("?")[0].partition("#")[0], "a query or a fragment")
    if not _HOST.match(host) or len(host) > 253:
        raise _invalid(text, f"invalid host {host[:80]!r}")
    if port == 0 or not _PATH.match(parts.path):
        raise _invalid(text, "port 0" if port == 0 else f"invalid path {parts.path[:80]!r}")
    prefix = parts.path.rstrip("/")
    if prefix == "/v1" or prefix.endswith("/v1"):  # as OpenAI's clients are configured
        prefix = prefix.removesuffix("/v1")
    return Address(
        url=text.rstrip("/"),
        tls=parts.scheme == "https",
        host=host,
        port=_PORTS[parts.scheme] if port is None else port,
        prefix=prefix,
        every=every,
    )


def replicas_of(address: Address, seconds: float) -> tuple[Replica, ...]:
    """The replicas at ``address``, in the order of their addresses: one, or with ``dns+`` one for
    each A and AAAA record that the name has now. Raises :class:`OSError` for a name without any,
    and where that takes longer than ``seconds``."""
    if not address.every:
        return (Replica(address),)
    look_up = partial(socket.getaddrinfo, address.host, address.port, type=socket.SOCK_STREAM)
    try:
        found = within(seconds, look_up)
    except SlowError:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer in {seconds:g} seconds") from None
    ips = {str(sockaddr[0]): family for family, *_, sockaddr in found}
    order = sorted(
        ips, key=lambda ip: (ips[ip] != socket.AF_INET, socket.inet_pton(ips[ip], _bare(ip)))
    )
    return tuple(Replica(address, ip) for ip in order[:MOST_REPLICAS])


def _bare(ip: str) -> str:
    return ip.partition("%")[0]  # without the zone


def _invalid(text: str, found: str, hint: str | None = None) -> UsageError:
    return UsageError(
        codes.FLEET_ARGUMENT.finding(
            f"Invalid --on {text[:200]!r}",
            found=found,
            expected="http://HOST:PORT, https://HOST, or dns+http://HOST:PORT for every address "
            "of HOST",
            hint=hint,
        )
    )
