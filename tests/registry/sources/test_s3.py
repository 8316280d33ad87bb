"""S3, against a real service."""

from __future__ import annotations

import hashlib
import socket
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.s3_server import S3Server
from support.web import WebServer

OLD = b"old weights " * 1000
NEW = b"new weights " * 1000
LARGE = bytes(range(256)) * 20_000
LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><Name>b</Name><Prefix>t/</Prefix><IsTruncated>false</IsTruncated>{rows}
</ListBucketResult>"""
ROW = "<Contents><Key>t/{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
NO_VERSIONS = (403, b"<Error><Code>AccessDenied</Code></Error>")


def opened(text: str, **options: object) -> Folder:
    return open_source(Source.parse(text), directory=Path.cwd(), **options)  # type: ignore[arg-type]


@contextmanager
def refused(code: str, secret: str = "") -> Iterator[None]:
    with pytest.raises(SourceError) as caught:
        yield
    told = "".join(traceback.format_exception(caught.value))
    assert caught.value.code == code, told
    assert not secret or secret not in told


def test_a_versioned_object_that_changed_is_still_read_as_it_was_pinned(s3: S3Server) -> None:
    bucket = s3.bucket(versioned=True)
    first = s3.put(bucket, "tone/w.bin", OLD)
    folder = opened(f"s3://{bucket}/tone")
    pins = folder.files()
    assert pins["w.bin"].version == f"versionid:{first['VersionId']}"
    s3.put(bucket, "tone/w.bin", NEW)
    assert folder.read("w.bin") == OLD
    assert opened(f"s3://{bucket}/tone", files=pins).read("w.bin") == OLD
    assert opened(f"s3://{bucket}/tone").read("w.bin") == NEW
    s3.delete(bucket, "tone/w.bin")
    assert opened(f"s3://{bucket}/tone", files=pins).read("w.bin") == OLD


def test_a_deleted_version_is_reported(s3: S3Server) -> None:
    bucket = s3.bucket(versioned=True)
    first = s3.put(bucket, "tone/w.bin", OLD)
    folder = opened(f"s3://{bucket}/tone")
    pins = folder.files()
    s3.put(bucket, "tone/w.bin", NEW)
    s3.delete(bucket, "tone/w.bin", first["VersionId"])
    with refused("AD229"):
        opened(f"s3://{bucket}/tone", files=pins).files()
    with refused("AD229"):
        folder.read("w.bin")


def test_an_unversioned_object_that_changes_after_it_was_listed_is_an_error(
    s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "tone/w.bin", OLD)
    folder = opened(f"s3://{bucket}/tone")
    assert folder.read("w.bin", 0, 3) == b"old"
    s3.put(bucket, "tone/w.bin", NEW)
    with refused("AD228"):
        folder.read("w.bin", 0, 3)
    with refused("AD228"):
        folder.download("w.bin", tmp_path / "into")
    assert not (tmp_path / "into").exists()
    with refused("AD228"):
        opened(f"s3://{bucket}/tone", files=folder.files()).files()
    s3.delete(bucket, "tone/w.bin")
    with refused("AD228"):
        folder.read("w.bin")
    with refused("AD229"):
        opened(f"s3://{bucket}/tone", files=folder.files()).files()


def test_all_changes_are_reported_at_once(s3: S3Server) -> None:
    bucket = s3.bucket()
    for name in ("a", "b", "c"):
        s3.put(bucket, f"tone/{name}", OLD)
    pins = opened(f"s3://{bucket}/tone").files()
    s3.put(bucket, "tone/a", NEW)
    s3.delete(bucket, "tone/c")
    with pytest.raises(SourceError) as caught:
        opened(f"s3://{bucket}/tone", files=pins).files()
    assert [f.code for f in caught.value.findings] == ["AD228", "AD229"]


def test_a_pin_made_before_versioning_was_switched_on_still_holds(s3: S3Server) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "tone/w.bin", OLD)
    pins = opened(f"s3://{bucket}/tone").files()
    s3.client.call_s3(
        "put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    assert opened(f"s3://{bucket}/tone", files=pins).read("w.bin") == OLD


def test_neighbours_and_markers_are_not_in_the_folder(s3: S3Server) -> None:
    bucket = s3.bucket()
    for key in ("tone/", "tone/a.json", "tone/sub/", "tone/sub/b.json", "tone2/c.json"):
        s3.put(bucket, key, b"")
    assert list(opened(f"s3://{bucket}/tone").files()) == ["a.json", "sub/b.json"]


@pytest.mark.slow
def test_a_listing_of_many_pages_is_complete(s3: S3Server) -> None:
    bucket = s3.bucket(versioned=True)
    for number in range(1005):
        s3.put(bucket, f"tone/{number:04}", b"x")
    assert len(opened(f"s3://{bucket}/tone").files()) == 1005


def test_a_wrong_secret_is_reported_and_not_shown(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "tone/a", OLD)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.wrong_secret)
    with refused("AD220", s3.wrong_secret):
        opened(f"s3://{bucket}/tone").files()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with refused("AD220", s3.wrong_secret):
        opened(f"s3://{bucket}/tone").files()


def test_missing_credentials_are_reported(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with refused("AD221"):
        opened("s3://bucket/tone").files()
    with refused("AD220"):
        opened("s3://bucket/tone", storage_options={"anon": True}).files()


def test_options_of_the_adapter_name_endpoint_and_keys(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "tone/a", OLD)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    options = {"endpoint_url": s3.endpoint, "key": s3.access_key, "secret": s3.secret_key}
    assert opened(f"s3://{bucket}/tone", storage_options=options).read("a") == OLD
    with refused("AD232", s3.secret_key):
        opened(f"s3://{bucket}/tone", storage_options={**options, "endpont": "x"}).files()


def test_a_missing_bucket_or_folder_has_its_code(s3: S3Server) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "tone/a", OLD)
    with refused("AD214"):
        opened("s3://no-such-bucket/tone").files()
    with refused("AD201"):
        opened(f"s3://{bucket}/ton").files()
    with refused("AD201"):
        opened(f"s3://{s3.bucket()}").files()
    with refused("AD202"):
        opened(f"s3://{bucket}/tone/a").files()
    with refused("AD206"):
        opened(f"s3://{bucket}/tone").read("b")
    with refused("AD232"):
        opened("s3://Not_A_Bucket!/tone").files()


def test_a_closed_endpoint_is_reported_in_time(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
        began = time.monotonic()
        with refused("AD224"):
            opened("s3://bucket/tone").files()
        assert time.monotonic() - began < 10
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    with refused("AD224"):
        opened("s3://bucket/tone").files()


@pytest.mark.slow
def test_an_endpoint_that_never_answers_is_given_up(
    s3: S3Server, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.silent = True
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    began = time.monotonic()
    with refused("AD225"):
        opened("s3://bucket/tone").files()
    assert time.monotonic() - began < 30


def test_a_key_that_leads_out_of_the_folder_is_refused(
    s3: S3Server, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("a.json", "../../etc/evil", "x//y")
    rows = "".join(ROW.format(key=key, etag='"aa"', size=3) for key in keys)
    web.files["/b"] = LISTING.format(rows=rows).encode()
    web.queries["versions"] = NO_VERSIONS
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    with pytest.raises(SourceError) as caught:
        opened("s3://b/t").files()
    assert [f.found for f in caught.value.findings] == ["'../../etc/evil'", "'x//y'"]
    assert caught.value.code == "AD203"


@pytest.fixture
def stub(s3: S3Server, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """A server that answers like S3, for what a real one never does: one object, ``t/w.bin``."""
    digest = hashlib.md5(LARGE, usedforsecurity=False).hexdigest()
    row = ROW.format(key="w.bin", etag=f'"{digest}"', size=len(LARGE))
    web.files["/b"] = LISTING.format(rows=row).encode()
    web.files["/b/t/w.bin"] = LARGE
    web.queries["versions"] = NO_VERSIONS
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    return web


def test_a_broken_body_is_resumed_where_it_broke(stub: WebServer) -> None:
    folder = opened("s3://b/t")
    folder.files()
    stub.truncate = 2
    assert folder.read("w.bin") == LARGE
    gets = [headers["Range"] for _, path, headers in stub.requests if "w.bin" in path]
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in gets]
    assert len(starts) == 3 and starts == sorted(set(starts)), gets


def test_a_body_that_always_ends_early_is_an_error(stub: WebServer, tmp_path: Path) -> None:
    folder = opened("s3://b/t")
    folder.files()
    stub.truncate = 1000
    with refused("AD226"):
        folder.download("w.bin", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_server_that_ignores_range_is_read_no_further_than_needed(stub: WebServer) -> None:
    stub.ranges = False
    folder = opened("s3://b/t")
    assert folder.read("w.bin", 4, 7) == LARGE[4:11]
    assert folder.bytes_read <= 11 + (64 << 10)


def test_where_versions_cannot_be_listed_the_etag_pins(stub: WebServer) -> None:
    folder = opened("s3://b/t")
    assert (folder.files()["w.bin"].version or "").startswith("etag:")
    assert folder.read("w.bin", 1, 2) == LARGE[1:3]
    stub.files["/b/t/w.bin"] = LARGE[::-1]
    stub.status["/b/t/w.bin"] = 412
    with refused("AD228"):
        folder.read("w.bin")


def test_large_uploads_are_pinned_by_the_etag_that_reading_knows(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.client.open(f"{bucket}/t/parts.bin", "wb", block_size=5 << 20) as file:
        file.write(b"x" * (11 << 20))
    s3.put(bucket, "t/chunks.bin", b"y" * (9 << 20))
    folder = opened(f"s3://{bucket}/t")
    assert folder.read("parts.bin", 10 << 20, 2) == b"xx"
    assert folder.read("chunks.bin", 0, 2) == b"yy"
    assert opened(f"s3://{bucket}/t", files=folder.files()).files() == folder.files()


@pytest.mark.slow
def test_200_megabytes_stream_to_disk_and_not_through_memory(s3: S3Server, tmp_path: Path) -> None:
    bucket, piece = s3.bucket(), bytes(range(256)) * 4096
    wanted = hashlib.sha256()
    with s3.client.open(f"{bucket}/big/w.bin", "wb") as file:
        for _ in range(200):
            file.write(piece)
            wanted.update(piece)
    folder = opened(f"s3://{bucket}/big")
    told: list[int] = []
    folder.files()
    tracemalloc.start()
    place = folder.download("w.bin", tmp_path / "w.bin", told.append)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert place.stat().st_size == sum(told) == folder.bytes_read == 200 << 20
    assert peak < 32 << 20
    found = hashlib.sha256()
    with place.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    assert found.digest() == wanted.digest()
