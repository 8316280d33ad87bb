"""The values of --on, and the addresses behind a name."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.serving.fleet.address import Address, Replica, parse_address, replicas_of


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://a:8000", Address("http://a:8000", False, "a", 8000)),
        ("https://a.b/", Address("https://a.b", True, "a.b", 443)),
        ("http://a/models/x/", Address("http://a/models/x", False, "a", 80, "/models/x")),
        ("http://a:8000/v1", Address("http://a:8000/v1", False, "a", 8000)),
        ("http://[::1]:9", Address("http://[::1]:9", False, "::1", 9)),
        ("dns+https://s.n:1", Address("dns+https://s.n:1", True, "s.n", 1, every=True)),
    ],
)
def test_an_address_has_a_host_a_port_and_a_path(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "a:8000", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://a:0"),
        *("http://a?x=1", "http://a#b", "http://a b", "http://a/\r\nX: y", "http://ä", "dns+a:80"),
        *("http://[::1", "dns+dns+http://a", f"http://{'a' * 300}", "http://a\0", "http://-"),
        *("http://a\nb", "http://a:8\t0", "\rhttp://a", "http://a\x7f"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(text)
    assert refused.value.code == "AD980"


@pytest.mark.parametrize("text", ["http://me:hunter2@a:8000", "http://me:hunter2@a:8000\n"])
def test_a_password_in_a_url_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(text)
    assert "hunter2" not in str(refused.value)


def test_a_name_is_one_replica_and_with_dns_one_for_each_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("svc", 8000)
        four, six = (socket.AF_INET, 1, 6, ""), (socket.AF_INET6, 1, 6, "")
        ips = [(six, "fd00::1"), (four, "10.0.0.10"), (four, "10.0.0.9"), (four, "10.0.0.9")]
        return [(*kind, (ip, port)) for kind, ip in ips]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    address = parse_address("dns+http://svc:8000")
    replicas = replicas_of(address, 1)
    assert [one.ip for one in replicas] == ["10.0.0.9", "10.0.0.10", "fd00::1"]
    assert replicas[0].name == "http://svc:8000 (10.0.0.9)"
    assert {one.host_header for one in replicas} == {"svc:8000"}
    plain = parse_address("http://svc:8000")
    assert replicas_of(plain, 1) == (Replica(plain),)
