"""Replicas that are well, that lie, are slow, are down or are behind: each is a row."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.lockfile import Lock
from adapterdock.serving.fleet.address import parse_address
from adapterdock.serving.fleet.asking import Line
from adapterdock.serving.fleet.compare import ReplicaRow
from adapterdock.serving.fleet.fleet import Round, ask_fleet, probe_fleet, wait_for_fleet
from adapterdock.serving.served.served import Served
from support.project import Project
from support.replicas import ReplicaServer, certificate, digests_of, models_of, status_of

Make = Callable[..., ReplicaServer]
OTHER = "sha256:" + "9" * 64


@pytest.fixture
def lock(project: Project) -> Lock:
    project.base()
    project.adapter("tone")
    project.adapter("legal", seed=1)
    both = {"combine": "sum", "of": {"tone": 1.0, "legal": 0.5}}
    project.write({"tone": "./tone", "legal": "./legal"}, compositions={"both": both})
    return adapterdock.lock(project.manifest)


def asked(lock: Lock, *urls: str, seconds: float = 5.0, key: str | None = None) -> Round:
    return ask_fleet(lock, [parse_address(url) for url in urls], Line(key, seconds))


def one_row(lock: Lock, url: str, **options: Any) -> ReplicaRow:
    (row,) = asked(lock, url, **options).rows
    return row


def test_replicas_are_compared_by_content_in_the_order_of_their_addresses(
    lock: Lock, replica: Make
) -> None:
    good, other, old = replica().serves(lock), replica().serves(lock), replica()
    status = other.answers["/v1/adapterdock/status"]
    status["adapters"]["tone"]["digest"] = status["wanted"]["tone"] = OTHER
    old.answers["/v1/models"] = models_of({n: d["digest"] for n, d in status["adapters"].items()})
    rows = asked(lock, good.url, other.url, old.url).rows
    assert [row.replica for row in rows] == [good.url, other.url, old.url]
    assert [row.state for row in rows] == ["same", "differs", "differs"]
    assert [row.asked for row in rows] == ["status", "status", "models"]
    assert [row.same for row in rows] == [3, 2, 2]


LIES: dict[str, Any] = {
    "another schema": {"schema": "x/1"},
    "wrong types": {"schema": "adapterdock.status/1", "adapters": 3},
    "not a number": b'{"schema": NaN}',
    "html": b"<html>hello</html>",
    "nothing": b"",
    "HTTP 500": 500,
    "HTTP 204": 204,
    "no key": 401,
    "cut off": "cut",
    "cut off between chunks": "unended",
    "endless": "endless",
    "packed": "bomb",
    "a huge body": b" " * (17 << 20),
    "no HTTP": "raw",
}


REASONS = {
    "endless": "more than 16777216 bytes",
    "a huge body": "more than 16777216 bytes",
    "cut off": "cut off",
    "cut off between chunks": "cut off",
    "no HTTP": "does not speak HTTP",
    "HTTP 500": "HTTP 500",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_replica_that_lies_is_a_row(lie: str, lock: Lock, replica: Make) -> None:
    server = replica()
    server.answers["/v1/adapterdock/status"] = LIES[lie]
    row = one_row(lock, server.url, seconds=20)
    assert (row.state, row.asked, [f.code for f in row.findings]) == ("unknown", None, ["AD978"])
    if lie in REASONS:
        assert REASONS[lie] in row.findings[0].message


@pytest.mark.parametrize("mode", ["silent", "drip", "stall"])
def test_a_replica_that_is_slow_is_a_row_in_time(mode: str, lock: Lock, replica: Make) -> None:
    server = replica()
    server.answers["/v1/adapterdock/status"] = mode
    began = time.monotonic()
    row = one_row(lock, server.url, seconds=0.5)
    assert time.monotonic() - began < 5
    assert row.state == "unknown"
    assert "0.5 seconds" in row.findings[0].message


def test_a_slow_answer_leaves_no_thread_behind(lock: Lock, replica: Make) -> None:
    server = replica()
    server.answers["/v1/adapterdock/status"] = "drip"
    one_row(lock, server.url, seconds=0.3)
    until = time.monotonic() + 60
    while any(t.name == "adapterdock-transfer" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_replica_that_is_down_and_a_name_without_an_address_are_rows(lock: Lock) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        down, nobody, nobodies = asked(
            lock,
            f"http://127.0.0.1:{port}",
            "http://nobody.invalid:1",
            "dns+http://all.nobody.invalid:1",
        ).rows
    assert "Connection refused" in down.findings[0].message
    for row in (nobody, nobodies):
        assert "nobody.invalid has no address" in row.findings[0].message
        assert row.state == "unknown"


def test_slow_replicas_are_waited_for_together(lock: Lock, replica: Make) -> None:
    servers = [replica() for _ in range(6)]
    for server in servers:
        server.answers["/v1/adapterdock/status"] = "silent"
    began = time.monotonic()
    rows = asked(lock, *(s.url for s in servers), seconds=1.5).rows
    assert time.monotonic() - began < 6
    assert len(rows) == 6


def test_the_key_is_sent_as_a_bearer_and_a_wrong_one_is_a_row(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    server.key = "k-123"
    assert one_row(lock, server.url, key="k-123").state == "same"
    wrong = one_row(lock, server.url, key="k-999")
    assert "rejected the key (HTTP 401)" in wrong.findings[0].message
    none = one_row(lock, server.url)
    assert "needs a key" in none.findings[0].message
    assert "ADAPTERDOCK_FLEET_KEY" in (none.findings[0].hint or "")


def test_the_key_goes_to_no_other_host(lock: Lock, replica: Make) -> None:
    server, thief = replica(), replica().serves(lock)
    server.redirect = f"{thief.url}/v1/adapterdock/status"
    row = one_row(lock, server.url, key="k-123")
    assert row.state == "unknown"
    assert "redirects" in row.findings[0].message
    assert len(server.requests) == 1
    assert thief.requests == []


def test_no_proxy_and_no_netrc_is_used(
    lock: Lock, replica: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, proxy = replica().serves(lock), replica()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as in the container of an engine
    assert one_row(lock, server.url).state == "same"
    assert proxy.requests == []
    assert "Authorization" not in server.requests[0][2]


def two_addresses(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    """Let ``svc.test`` have these addresses."""
    real = socket.getaddrinfo

    def found(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != "svc.test":
            return real(host, port, *more, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_every_address_of_a_name_is_asked_under_the_name(
    lock: Lock, replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replica("127.0.0.1").serves(lock)
    second = replica("127.0.0.2", first.port)
    two_addresses(monkeypatch, "127.0.0.2", "127.0.0.1")
    rows = asked(lock, f"dns+http://svc.test:{first.port}").rows
    assert [row.replica for row in rows] == [
        f"http://svc.test:{first.port} (127.0.0.1)",
        f"http://svc.test:{first.port} (127.0.0.2)",
    ]
    assert [row.state for row in rows] == ["same", "unknown"]
    for server in (first, second):
        assert server.requests[0][2]["Host"] == f"svc.test:{first.port}"


def test_a_certificate_must_be_that_of_the_name_also_at_an_address(
    lock: Lock, replica: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good, other = certificate(tmp_path, "svc.test"), certificate(tmp_path, "other.test")
    both = tmp_path / "both.pem"
    both.write_bytes(good.read_bytes() + other.read_bytes())
    first = replica("127.0.0.1", cert=good).serves(lock)
    second = replica("127.0.0.2", first.port, cert=other).serves(lock)
    two_addresses(monkeypatch, "127.0.0.1", "127.0.0.2")
    url = f"dns+https://svc.test:{first.port}"
    assert {row.state for row in asked(lock, url).rows} == {"unknown"}  # trusts neither
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    rows = asked(lock, url, key="k-123").rows
    assert [row.state for row in rows] == ["same", "unknown"]
    assert "certificate is not valid for svc.test" in rows[1].findings[0].message
    assert second.requests == []


def test_a_server_of_another_protocol_is_a_row(lock: Lock, replica: Make) -> None:
    row = one_row(lock, replica().serves(lock).url.replace("http:", "https:"), seconds=3)
    assert row.state == "unknown"


def test_a_replica_that_is_named_twice_is_asked_once(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    assert len(asked(lock, server.url, f"{server.url}/", f"{server.url}/v1").rows) == 1


def test_a_prefix_comes_before_the_routes(lock: Lock, replica: Make) -> None:
    server = replica()
    server.answers["/team/v1/adapterdock/status"] = status_of(lock)
    assert one_row(lock, f"{server.url}/team").state == "same"


def test_waiting_ends_when_all_agree(
    lock: Lock, replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.serving.fleet.fleet.PAUSE", 0.05)
    server = replica().serves(lock, state="starting", adapters={})
    addresses = [parse_address(server.url)]
    rounds: list[str] = []

    def on_round(rows: Any) -> None:
        rounds.append(rows[0].state)
        if len(rounds) == 2:
            server.serves(lock)

    result = wait_for_fleet(lock, addresses, Line(), 30, on_round)
    assert (rounds, result.rows[0].state) == (["behind", "behind"], "same")


def test_waiting_ends_when_the_time_is_over(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock, adapters={})
    began = time.monotonic()
    result = wait_for_fleet(lock, [parse_address(server.url)], Line(), 0.5)
    assert time.monotonic() - began < 5
    assert result.rows[0].state == "behind"
    assert len(server.requests) >= 2


def probed(lock: Lock, server: ReplicaServer, **options: Any) -> ReplicaRow:
    (row,) = probe_fleet(asked(lock, server.url), Line(), **options)
    return row


def test_a_probe_shows_that_every_adapter_acts(lock: Lock, replica: Make) -> None:
    row = probed(lock, replica().serves(lock))
    assert (row.state, [one.acts for one in row.adapters]) == ("same", [True] * 3)
    assert row.findings == ()


def test_an_adapter_that_answers_as_the_base_differs(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    server.says = lambda model, prompt: prompt if model != "legal" else "Objection!"
    row = probed(lock, server)
    assert {one.name: one.acts for one in row.adapters} == {
        "both": False,
        "legal": True,
        "tone": False,
    }
    assert (row.state, [f.code for f in row.findings]) == ("differs", ["AD979"])
    assert row.findings[0].found == "both, tone"


def test_an_adapter_without_a_parent_is_not_taken_for_the_base(lock: Lock, replica: Make) -> None:
    """As our own app lists them, with one more than the lock has."""
    digests = {**digests_of(lock), "a-first": OTHER}
    server = replica().serves(lock, adapters={n: {"digest": d} for n, d in digests.items()})
    server.answers["/v1/models"] = models_of(digests)
    for card in server.answers["/v1/models"]["data"]:
        del card["parent"]
    server.says = lambda model, prompt: "the same" if model != "a-first" else "another"
    row = probed(lock, server)
    assert {one.name: one.acts for one in row.adapters} == {
        "a-first": None,
        **dict.fromkeys(digests_of(lock), False),
    }


def test_one_prompt_with_another_answer_is_enough(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    server.says = lambda model, prompt: "x" if model == "base" or prompt != "special" else "y"
    assert probed(lock, server).state == "differs"
    assert probed(lock, server, prompts=["usual", "special"]).state == "same"


def test_empty_answers_are_no_proof(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    server.says = lambda model, prompt: "text" if model == "base" else ""
    row = probed(lock, server)
    assert (row.state, row.findings[0].message) == ("differs", "Adapters answer with nothing")


def test_a_probe_that_fails_is_unchecked(lock: Lock, replica: Make) -> None:
    server = replica().serves(lock)
    server.answers["/v1/completions"] = 500
    row = probed(lock, server)
    assert (row.state, [f.code for f in row.findings]) == ("unknown", ["AD978"])
    server.answers["/v1/models"] = models_of({})
    server.answers["/v1/models"]["data"] = []
    assert "no base to compare with" in probed(lock, server).findings[0].message


def test_what_a_follower_says_of_itself_is_understood(
    project: Project, lock: Lock, replica: Make
) -> None:
    """Its status, and the paths that an engine lists, of both adapters and their sum."""
    with Served(project.manifest) as served:
        served.start()
        by_status, by_paths = replica(), replica()
        by_status.answers["/v1/adapterdock/status"] = served.status()
        by_paths.answers["/v1/models"] = models_of({})
        cards = [{"id": n, "root": str(a.path), "parent": "b"} for n, a in served.current().items()]
        by_paths.answers["/v1/models"]["data"] += cards
        rows = asked(lock, by_status.url, by_paths.url).rows
        assert [(row.state, row.same) for row in rows] == [("same", 3), ("same", 3)]
        project.adapter("tone", seed=9)
        changed = adapterdock.lock(project.manifest, upgrade=["tone"])
        old = asked(changed, by_status.url, by_paths.url).rows
        assert [(row.state, row.same) for row in old] == [("differs", 1), ("differs", 1)]
        served.look()
        by_status.answers["/v1/adapterdock/status"] = served.status()
        assert one_row(changed, by_status.url).state == "same"
