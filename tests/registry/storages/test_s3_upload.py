"""The parts of a large file go by plain requests, and by s3fs where those fail."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.digests import PREFIX, sha256_file
from adapterdock.registry.sources.request import SourceRequest
from adapterdock.registry.sources.s3_plain import PlainRoad
from adapterdock.registry.storages import s3_upload
from adapterdock.registry.storages.remote_storage import RemoteStorage
from adapterdock.registry.storages.s3_upload import PART
from adapterdock.registry.storages.storage import create_verified
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.s3_server import S3Server

SIGNED = "X-Amz-Signature="
PARTS = 3


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(Random(0).randbytes((PARTS - 1) * PART + 5))
    return path


def _storage(s3: S3Server, proxy: FaultyProxy, name: str, **options: Any) -> RemoteStorage:
    source = Source.parse(f"s3://{s3.shared}/{name}")
    storage = RemoteStorage(SourceRequest(source, options=options), wait=lambda _: None)
    storage.create("first", b"1")
    proxy.requests.clear()
    return storage


def _sent(proxy: FaultyProxy) -> tuple[int, int]:
    """Parts that were sent by plain requests, and by s3fs."""
    puts = [path for method, path in proxy.requests if method == "PUT"]
    plain = sum(SIGNED in path for path in puts)
    return plain, len(puts) - plain


def _unfinished(s3: S3Server, name: str) -> list[str]:
    found = s3.client.call_s3("list_multipart_uploads", Bucket=s3.shared, Prefix=f"{name}/")
    return [upload["Key"] for upload in found.get("Uploads", ())]


def _is_there(storage: RemoteStorage, large: Path) -> bool:
    return b"".join(storage.chunks("large")) == large.read_bytes()


def test_every_part_goes_by_one_plain_request(
    s3: S3Server, proxy: FaultyProxy, large: Path
) -> None:
    storage = _storage(s3, proxy, "plain")
    create_verified(storage, "large", large, sha256_file(large))
    assert _sent(proxy) == (PARTS, 0)
    assert all("x-amz-checksum-crc32" in path for method, path in proxy.requests if method == "PUT")
    assert _is_there(storage, large)


@pytest.mark.parametrize("fault", ["500", "409", "dropped", "lost"])
def test_a_part_that_fails_once_is_sent_again(
    s3: S3Server, proxy: FaultyProxy, large: Path, fault: str
) -> None:
    storage = _storage(s3, proxy, f"once-{fault}")
    proxy.faults = [fault]
    create_verified(storage, "large", large, sha256_file(large))
    assert sum(_sent(proxy)) == PARTS + 1
    assert _is_there(storage, large)


@pytest.mark.parametrize("setting", ["proxies", "class"])
def test_settings_that_a_plain_request_would_not_respect_leave_the_parts_to_s3fs(
    s3: S3Server, proxy: FaultyProxy, large: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {}
    if setting == "class":
        options = {"s3_additional_kwargs": {"StorageClass": "STANDARD"}}
    storage = _storage(s3, proxy, f"set-{setting}", **options)
    if setting == "proxies":
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "")
    create_verified(storage, "large", large, sha256_file(large))
    assert _sent(proxy) == (0, PARTS)
    assert _is_there(storage, large)


def test_a_changed_file_is_refused_and_nothing_is_created(
    s3: S3Server, proxy: FaultyProxy, large: Path
) -> None:
    storage = _storage(s3, proxy, "changed")
    with pytest.raises(AdapterdockError):
        create_verified(storage, "large", large, PREFIX + "0" * 64)
    assert _sent(proxy) == (PARTS, 0)
    assert "large" not in storage.find("")
    assert _unfinished(s3, "changed") == []


def test_of_two_uploads_the_one_that_ends_first_wins(
    s3: S3Server, proxy: FaultyProxy, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other := tmp_path / "other").write_bytes(Random(1).randbytes(large.stat().st_size))
    storage = _storage(s3, proxy, "raced")
    send, sent = s3_upload._send, list[Path]()  # pyright: ignore[reportPrivateUsage]

    async def send_and_wait(*arguments: Any) -> dict[int, str]:
        tags = await send(*arguments)
        sent.append(path := arguments[3])
        if path == other:
            await asyncio.to_thread(create_verified, storage, "large", large, sha256_file(large))
        return tags

    monkeypatch.setattr(s3_upload, "_send", send_and_wait)
    with pytest.raises(FileExistsError):
        create_verified(storage, "large", other, sha256_file(other))
    assert sent == [other, large]
    assert _is_there(storage, large)
    assert _unfinished(s3, "raced") == []


def test_ctrl_c_removes_the_parts_that_were_sent(
    s3: S3Server, proxy: FaultyProxy, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = _storage(s3, proxy, "stopped")
    sent, put = threading.Event(), PlainRoad.put_part

    def send(road: PlainRoad, which: Mapping[str, str], number: int, body: memoryview) -> str:
        tag = put(road, which, number, body)
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)
        return tag

    monkeypatch.setattr(PlainRoad, "put_part", send)
    with pytest.raises(KeyboardInterrupt):
        create_verified(storage, "large", large, sha256_file(large))
    assert sent.is_set() and "large" not in storage.find("")
    assert _unfinished(s3, "stopped") == []
    monkeypatch.undo()
    create_verified(storage, "large", large, sha256_file(large))


def test_a_part_that_was_altered_on_its_way_is_not_accepted(
    s3: S3Server, proxy: FaultyProxy, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.registry.sources import s3_plain

    storage = _storage(s3, proxy, "altered")
    monkeypatch.setattr(s3_plain, "crc32", lambda _: 1)
    create_verified(storage, "large", large, sha256_file(large))
    assert _sent(proxy) == (PARTS, PARTS)
    assert _is_there(storage, large)
