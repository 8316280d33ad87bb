"""Networks that break while a registry on S3 is used: nothing is lost, twice or silently wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.catalogue.catalogue import open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.promote import history, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.files.digests import PREFIX, sha256_file
from adapterdock.registry.sources.request import SourceRequest
from adapterdock.registry.storages.remote_storage import RemoteStorage
from adapterdock.registry.storages.s3_upload import PART
from adapterdock.registry.storages.storage import create_verified, write_once
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.published import contents, entry
from support.s3_server import S3Server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def storage(s3: S3Server, proxy: FaultyProxy) -> RemoteStorage:
    """Behind the proxy; proven already."""
    source = Source.parse(f"s3://{s3.bucket()}/registry")
    storage = RemoteStorage(SourceRequest(source), wait=lambda _: None)
    storage.create("first", b"12345" * 1000)
    proxy.requests.clear()
    return storage


@pytest.mark.parametrize("fault", ["500", "503", "dropped", "cut", "late"])
def test_a_read_survives_a_fault_and_is_complete(
    storage: RemoteStorage, proxy: FaultyProxy, fault: str
) -> None:
    proxy.others["GET"] = [fault]
    assert storage.read("first", 1 << 20) == b"12345" * 1000
    proxy.others["GET"] = [fault]
    assert list(storage.find("")) == ["first", "probe"]


@pytest.mark.parametrize("fault", ["500", "503", "cut", "dropped"])
def test_a_read_that_always_fails_is_named_and_never_shorter(
    storage: RemoteStorage, proxy: FaultyProxy, fault: str
) -> None:
    proxy.others["GET"] = [fault] * 100
    with pytest.raises(SourceError) as caught:
        storage.read("first", 1 << 20)
    assert "s3://" in str(caught.value)
    proxy.others["GET"] = [fault] * 100
    with pytest.raises(SourceError):  # a listing that fails is not an empty folder
        storage.find("")


@pytest.mark.parametrize("fault", ["lost", "409", "500", "503", "dropped", "cut", "late"])
def test_a_write_survives_a_fault_and_is_ours(
    storage: RemoteStorage, proxy: FaultyProxy, fault: str
) -> None:
    for number, content in enumerate((b"ours", b"")):
        proxy.faults = [fault]
        assert write_once(storage, f"new/{number}", content)
        proxy.faults = [fault]
        assert not write_once(storage, "first", content)
    assert storage.find("new") == {"new/0": 4, "new/1": 0}


def _large(path: Path, seed: int = 0) -> str:
    path.write_bytes(Random(seed).randbytes(2 * PART + 1))
    return sha256_file(path)


def _digest(storage: RemoteStorage, path: str) -> str:
    return PREFIX + hashlib.sha256(b"".join(storage.chunks(path))).hexdigest()


@pytest.mark.parametrize(
    ("method", "faults"),
    [
        ("PUT", ["lost"]),
        ("PUT", ["500", "fine", "503"]),
        ("PUT", ["fine", "cut"]),
        ("POST", ["lost"]),  # of the upload's begin
        ("POST", ["fine", "500"]),  # of its end: nothing was created
        ("POST", ["fine", "409"]),
    ],
)
def test_a_large_file_survives_a_fault_and_is_complete(
    storage: RemoteStorage, proxy: FaultyProxy, tmp_path: Path, method: str, faults: list[str]
) -> None:
    digest = _large(tmp_path / "large")
    if method == "PUT":
        proxy.faults = [*faults]
    else:
        proxy.others["POST"] = [*faults]
    create_verified(storage, "large", tmp_path / "large", digest)
    assert _digest(storage, "large") == digest


def test_a_large_file_whose_last_answer_was_lost_is_there_and_complete(
    storage: RemoteStorage, proxy: FaultyProxy, tmp_path: Path
) -> None:
    digest = _large(tmp_path / "large")
    proxy.others["POST"] = ["fine", "lost"]
    with pytest.raises(FileExistsError):  # which publishers take for done: the name is the digest
        create_verified(storage, "large", tmp_path / "large", digest)
    assert _digest(storage, "large") == digest
    other = _large(tmp_path / "large", seed=1)
    with pytest.raises(FileExistsError):
        create_verified(storage, "large", tmp_path / "large", other)
    assert _digest(storage, "large") == digest


def test_an_upload_that_failed_leaves_no_object_and_no_parts(
    storage: RemoteStorage, proxy: FaultyProxy, tmp_path: Path, s3: S3Server
) -> None:
    digest = _large(tmp_path / "large")
    proxy.always = "500"
    with pytest.raises(SourceError):
        create_verified(storage, "large", tmp_path / "large", digest)
    proxy.always = "fine"
    assert "large" not in storage.find("")
    bucket = storage.url.split("/")[2]
    found = s3.client.call_s3("list_multipart_uploads", Bucket=bucket)
    assert not found.get("Uploads")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_publishing_through_a_bad_network_loses_nothing(
    s3: S3Server, proxy: FaultyProxy, tmp_path: Path, seed: int
) -> None:
    """Each request may fail. Whatever was reported as published or promoted is there, once."""
    random = Random(seed)
    source = Source.parse(f"s3://{s3.shared}/bad-network-{seed}")
    init_registry(RemoteStorage(SourceRequest(source), wait=lambda _: None))
    kinds = {"PUT": ["lost", "409", "500", "503", "dropped", "fine"], "GET": ["500", "503", "cut"]}
    done: list[str] = []
    moved: list[str] = []
    for number in range(4):
        proxy.faults = [random.choice([*kinds["PUT"], "fine", "fine"]) for _ in range(30)]
        proxy.others["GET"] = [random.choice([*kinds["GET"], *["fine"] * 6]) for _ in range(60)]
        version = f"1.0.{number}"
        files = contents(tmp_path / "files", f"weights {number}")
        try:
            team = open_catalogue(RemoteStorage(SourceRequest(source), wait=lambda _: None))
            publish_entry(team, entry(version, files), files)
            done.append(version)
            if promote(team, "refunds", version, "prod") is not None:
                moved.append(version)
        except AdapterdockError:
            continue
    proxy.faults, proxy.others = [], {}
    team = open_catalogue(RemoteStorage(SourceRequest(source), wait=lambda _: None))
    there = {str(found) for found in team.listing("refunds").versions}
    assert set(done) <= there
    for version in there:
        (file,) = team.entry("refunds", version).entry.files
        blob = f"blobs/sha256/{file.sha256.removeprefix(PREFIX)}"
        assert _digest(team.storage, blob) == file.sha256  # type: ignore[arg-type]
    rows = [row.version for row in history(team, "refunds", "prod")]
    assert [row for row in rows if row in moved] == moved
    assert len(set(rows)) == len(rows)
    assert done
