"""What a server can do to a transfer, on every kind of source: it ends, and what comes is right."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from adapterdock.registry.sources.pace import Limits
from fsspec.implementations.memory import MemoryFileSystem
from support.hub_server import HubServer
from support.web import WebServer

CONFIG = b'{"peft_type": "LORA", "r": 8}'
WEIGHTS = bytes(range(251)) * 400
LARGE = WEIGHTS * 40
NAME, LARGE_NAME = "adapter_model.safetensors", "adapter_model.bin"
ROW = "<Contents><Key>t/{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>"


@dataclass
class Line:
    """A way to one adapter. ``strange`` makes the next answers be of these modes."""

    open: Callable[[], Folder]
    strange: Callable[..., None]
    host: str
    sent: Callable[[], int]
    asked: Callable[[], list[int]]
    """Where each GET of the weights began."""


@pytest.fixture(params=["hub", "http", "s3"])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Line:
    files = {"adapter_config.json": CONFIG, NAME: WEIGHTS, LARGE_NAME: LARGE}
    if request.param == "hub":
        hub: HubServer = request.getfixturevalue("hub")
        hub.commit("acme/tone", files)

        def break_hub(*modes: str) -> None:
            for mode in modes:
                hub.fail(mode, times=1)

        def begins() -> list[int]:
            gets = [r for r in hub.requests if r.method == "GET" and "/lfs/" in r.path]
            return [_start(r.headers.get("Range")) for r in gets]

        host = hub.endpoint.partition("://")[2]
        return Line(_opener("hf://acme/tone"), break_hub, host, lambda: hub.bytes_sent, begins)
    web: WebServer = request.getfixturevalue("web")
    for name, content in files.items():
        web.files[f"/b/t/{name}"] = content
    place = f"{web.url}/b/t"
    if request.param == "s3":
        place = "s3://b/t"
        rows = "".join(_row(name, content) for name, content in files.items())
        web.files["/b"] = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        )
        web.queries["versions"] = (403, b"<Error><Code>AccessDenied</Code></Error>")
        for name, value in {
            "AWS_ENDPOINT_URL": web.url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)

    def break_web(*modes: str) -> None:
        web.strange.extend(modes)

    def web_begins() -> list[int]:
        gets = [
            h for method, path, h in web.requests if method == "GET" and "adapter_model" in path
        ]
        return [_start(h.get("Range")) for h in gets]

    host = web.url.partition("://")[2]
    return Line(_opener(place), break_web, host, lambda: web.bytes_sent, web_begins)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 2 kB/s over 1.5 s is too slow."""
    monkeypatch.setenv("ADAPTERDOCK_MIN_RATE", "2000")
    monkeypatch.setenv("ADAPTERDOCK_STALL_SECONDS", "1.5")


def _opener(text: str) -> Callable[[], Folder]:
    return lambda: open_source(Source.parse(text), directory=Path.cwd())


def _row(name: str, content: bytes) -> str:
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return ROW.format(key=name, etag=f'"{etag}"', size=len(content))


def _start(text: str | None) -> int:
    return int((text or "bytes=0-").removeprefix("bytes=").partition("-")[0])


def _left(folder: Path) -> list[Path]:
    """What a failed download left in the folder that it was to be in, and in the Hub's cache."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    found = [p for p in cache.rglob("*") if p.is_file() and ".locks" not in p.parts]
    return [*folder.iterdir(), *found]


def failed(line: Line, into: Path, *modes: str) -> AdapterdockError:
    folder = line.open()
    folder.files()
    line.strange(*modes)
    with pytest.raises(AdapterdockError) as caught:
        folder.download(NAME, into / "w")
    assert _left(into) == []
    return caught.value


@pytest.mark.usefixtures("impatient")
def test_one_stall_is_resumed_where_it_stopped(line: Line, tmp_path: Path) -> None:
    folder = line.open()
    folder.files()
    line.strange("stall")
    told: list[int] = []
    place = folder.download(NAME, tmp_path / "w", told.append)
    assert place.read_bytes() == WEIGHTS
    assert sum(told) == len(WEIGHTS)
    assert line.asked() == [0, len(WEIGHTS) // 2]


@pytest.mark.usefixtures("impatient")
def test_a_server_that_only_stalls_is_named_with_its_rate_and_the_setting(
    line: Line, tmp_path: Path
) -> None:
    began = time.monotonic()
    error = failed(line, tmp_path, *["silent"] * 9)
    assert time.monotonic() - began < 20
    assert error.code == "AD225"
    finding = error.findings[0]
    assert line.host in finding.message
    assert "bytes/s" in str(finding.found) and "2,000 bytes/s" in str(finding.expected)
    assert "ADAPTERDOCK_MIN_RATE" in (finding.hint or "")


@pytest.mark.usefixtures("impatient")
def test_a_transfer_that_drips_is_ended(line: Line, tmp_path: Path) -> None:
    began = time.monotonic()
    error = failed(line, tmp_path, "drip", "drip", "drip")
    assert error.code == "AD225" and "ADAPTERDOCK_MIN_RATE" in str(error)
    assert time.monotonic() - began < 20
    assert len(line.asked()) == 2


@pytest.mark.usefixtures("impatient")
def test_a_slow_and_steady_transfer_passes(line: Line, tmp_path: Path) -> None:
    folder = line.open()
    folder.files()
    line.strange("steady")
    began = time.monotonic()
    assert folder.download(NAME, tmp_path / "w").read_bytes() == WEIGHTS
    assert time.monotonic() - began > 1.5
    assert line.asked() == [0]


def test_each_file_has_a_time_limit(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_FILE_SECONDS", "1")
    error = failed(line, tmp_path, "steady")
    assert error.code == "AD225" and "ADAPTERDOCK_FILE_SECONDS" in str(error)


@pytest.mark.usefixtures("impatient")
def test_no_limit_means_that_a_drip_is_waited_for(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_MIN_RATE", "0")
    folder = line.open()
    folder.files()
    line.strange("drip")
    assert folder.read(NAME, 100, 40) == WEIGHTS[100:140]


def test_a_cut_connection_is_resumed_where_it_broke(line: Line, tmp_path: Path) -> None:
    folder = line.open()
    folder.files()
    line.strange("cut", "cut")
    assert folder.download(LARGE_NAME, tmp_path / "w").read_bytes() == LARGE
    begins = line.asked()
    assert len(begins) == 3 and begins == sorted(set(begins)), begins


def test_an_endless_body_stops_at_the_listed_size(line: Line, tmp_path: Path) -> None:
    error = failed(line, tmp_path, *["endless"] * 9)
    assert error.code == "AD227"
    assert f"goes on after {len(WEIGHTS)} bytes" in str(error)
    assert line.sent() < 64 << 20


def test_a_body_shorter_than_listed_is_an_error(line: Line, tmp_path: Path) -> None:
    assert failed(line, tmp_path, *["short"] * 20).code == "AD226"


@pytest.mark.parametrize("line", ["hub", "s3"], indirect=True)
def test_a_listing_without_end_is_an_error(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("hub", "filesystems"):
        monkeypatch.setattr(f"adapterdock.registry.sources.{kind}.LISTING_BYTES", 10_000)
    line.strange("endless", "endless")
    with pytest.raises(SourceError) as caught:
        line.open().files()
    assert caught.value.code == "AD227"
    assert line.sent() < 16 << 20


def test_an_invalid_limit_is_reported(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERDOCK_MIN_RATE", "fast")
    with pytest.raises(SourceError) as caught:
        line.open().read(NAME)
    assert caught.value.code == "AD397"


# S3 hands out a coded object as it was stored: nothing is decoded there.
@pytest.mark.parametrize("line", ["hub", "http"], indirect=True)
def test_a_body_that_expands_stops_at_the_listed_size(line: Line, tmp_path: Path) -> None:
    assert failed(line, tmp_path, *["bomb"] * 9).code == "AD227"


@pytest.mark.parametrize("line", ["hub", "http"], indirect=True)
def test_a_coded_body_is_decoded_and_junk_is_an_error(line: Line) -> None:
    folder = line.open()
    folder.files()
    line.strange("gzip", "junk")
    assert folder.read(NAME) == WEIGHTS
    with pytest.raises(SourceError) as caught:
        folder.read(NAME)
    assert caught.value.code == "AD227"


# A driver that tells nothing before a piece is complete


class Slow(MemoryFileSystem):
    """Sends ``rate`` bytes a second; the first ``stalls`` reads never end."""

    protocol = "slowfs"
    rate = 1e9
    stalls = 0
    reads = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("slowfs://").strip("/")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        Slow.reads += 1
        if Slow.stalls > 0:
            Slow.stalls -= 1
            time.sleep(30)
        time.sleep((end - start) / Slow.rate)
        return super().cat_file(path, start=start, end=end)


@pytest.fixture
def slow() -> Iterator[Folder]:
    fsspec.register_implementation("slowfs", Slow, clobber=True)
    Slow().pipe_file("/t/" + NAME, WEIGHTS)
    yield open_source(Source.parse("slowfs://t"), directory=Path.cwd())
    Slow.rate, Slow.stalls, Slow.reads = 1e9, 0, 0


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_stalls_once_is_asked_again(slow: Folder) -> None:
    slow.files()
    Slow.stalls = 1
    began = time.monotonic()
    assert slow.read(NAME) == WEIGHTS
    assert time.monotonic() - began < 15


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_drips_is_given_up_and_a_slow_one_is_not(slow: Folder) -> None:
    slow.files()
    Slow.rate = 20_000
    assert slow.read(NAME, 0, 60_000) == WEIGHTS[:60_000]
    Slow.rate = 100
    with pytest.raises(SourceError) as caught:
        slow.read(NAME)
    assert caught.value.code == "AD225"


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_cannot_check_for_changes_is_an_error(
    slow: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.files()

    def hangs(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(Slow, "info", hangs)
    with pytest.raises(SourceError) as caught:
        slow.read(NAME, 0, 100)
    assert caught.value.code == "AD225"


def test_the_limits_are_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.from_environment() == Limits()
    assert Limits().time_for(0) == 300 and Limits().time_for(65_536) == 301
    monkeypatch.setenv("ADAPTERDOCK_FILE_SECONDS", "0")
    monkeypatch.setenv("ADAPTERDOCK_STALL_SECONDS", "60")
    limits = Limits.from_environment()
    assert limits.time_for(1) == float("inf")
    assert (limits.stall, limits.silence, limits.least) == (60, 60, 60 * 1024)
