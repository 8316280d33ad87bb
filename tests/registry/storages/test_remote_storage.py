"""What goes wrong between a registry's bucket and its readers and writers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.records.series import append, last_two, numbers_in
from adapterdock.registry.sources.request import SourceRequest
from adapterdock.registry.storages import remote_storage
from adapterdock.registry.storages.layout import PROBE
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.storages.remote_storage import RemoteStorage, meaning_of
from adapterdock.registry.storages.storage import Storage, write_once
from support.azure_server import AzureServer
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.s3_server import S3Server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def storage(s3: S3Server, proxy: FaultyProxy, waits: list[float]) -> RemoteStorage:
    """An S3 storage behind the proxy, which was proven already."""
    source = Source.parse(f"s3://{s3.bucket()}/registry")
    storage = RemoteStorage(SourceRequest(source), wait=waits.append)
    storage.create("first", b"1")
    proxy.requests.clear()
    return storage


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_write_whose_answer_was_lost_has_succeeded(
    storage: RemoteStorage, proxy: FaultyProxy, lost: int
) -> None:
    proxy.faults = ["lost"] * lost
    assert write_once(storage, "a/one", b"ours")
    assert not proxy.faults
    assert storage.read("a/one", 10) == b"ours"


def test_a_lost_answer_does_not_make_the_writing_of_another_one_ours(
    storage: RemoteStorage, proxy: FaultyProxy
) -> None:
    storage.create("a/one", b"theirs")
    proxy.faults = ["lost"]
    assert not write_once(storage, "a/one", b"ours")
    assert storage.read("a/one", 10) == b"theirs"


def test_a_write_that_collides_is_repeated_after_a_random_wait(
    storage: RemoteStorage, proxy: FaultyProxy, waits: list[float]
) -> None:
    proxy.faults = ["409"] * 5
    storage.create("a/one", b"1")
    assert storage.read("a/one", 10) == b"1"
    assert not proxy.faults
    assert len(set(waits)) == len(waits) > 0


def test_a_write_that_always_collides_is_refused(
    storage: RemoteStorage, proxy: FaultyProxy, waits: list[float]
) -> None:
    proxy.always = "409"
    with pytest.raises(SourceError) as caught:
        storage.create("a/one", b"1")
    assert caught.value.code == "AD873"
    assert caught.value.findings[0].found == "ConditionalRequestConflict"
    assert max(waits) <= 5


def test_a_server_that_fails_for_a_moment_is_asked_again(
    storage: RemoteStorage, proxy: FaultyProxy
) -> None:
    proxy.faults = ["500"] * 3
    storage.create("a/one", b"1")
    assert storage.read("a/one", 10) == b"1"


def test_a_server_that_keeps_failing_is_named(storage: RemoteStorage, proxy: FaultyProxy) -> None:
    proxy.always = "500"
    with pytest.raises(SourceError) as caught:
        storage.create("a/one", b"1")
    assert caught.value.code == "AD223"
    assert "Cannot write s3://" in str(caught.value)


def test_a_storage_that_accepts_one_file_twice_is_refused(s3: S3Server, proxy: FaultyProxy) -> None:
    bucket = s3.bucket()
    storage = open_storage(f"s3://{bucket}/registry", directory=Path())
    proxy.always = "accepted"
    for _ in range(2):  # and stays refused
        with pytest.raises(SourceError) as caught:
            storage.create("a/one", b"1")
        assert caught.value.code == "AD870"
    assert {path for method, path in proxy.requests if method == "PUT"} == {
        f"/{bucket}/registry/{PROBE}"
    }


def test_a_storage_is_proven_once_in_a_process_and_only_for_writing(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{s3.bucket()}/registry"
    reader = open_storage(url, directory=Path())
    reader.find("")
    assert not [path for method, path in proxy.requests if method == "PUT"]
    reader.create("one", b"1")
    open_storage(url, directory=Path()).create("two", b"2")
    probes = [path for method, path in proxy.requests if method == "PUT" and PROBE in path]
    assert len(probes) == 2
    monkeypatch.setattr(remote_storage, "_proven", set())  # another process
    open_storage(url, directory=Path()).create("three", b"3")
    probes = [path for method, path in proxy.requests if method == "PUT" and PROBE in path]
    assert len(probes) == 3


def test_reading_and_listing_take_one_request_each(
    storage: RemoteStorage, proxy: FaultyProxy
) -> None:
    storage.create("adapters/team/one", b"1")
    proxy.requests.clear()
    storage.read("adapters/team/one", 1 << 20)
    assert [method for method, _ in proxy.requests] == ["GET"]
    with pytest.raises(FileNotFoundError):
        storage.read("adapters/team/two", 1 << 20)
    assert len(proxy.requests) == 2
    storage.find("adapters/team")
    storage.find("adapters/nothing")
    assert len(proxy.requests) == 4
    proxy.requests.clear()
    storage.create("adapters/team/two", b"2")
    assert [method for method, _ in proxy.requests] == ["PUT"]


@pytest.mark.slow
def test_more_files_than_one_page_are_listed(storage: RemoteStorage, s3: S3Server) -> None:
    bucket = storage.url.split("/")[2]
    s3.client.pipe({f"{bucket}/registry/many/{number:05}": b"" for number in range(1001)})
    assert len(storage.find("many")) == 1001


def test_folders_that_consoles_make_and_hidden_files_are_not_listed(
    storage: RemoteStorage, s3: S3Server
) -> None:
    bucket = storage.url.split("/")[2]
    s3.put(bucket, "registry/a/", b"")
    s3.put(bucket, "registry/a/.one.tmp", b"")
    s3.put(bucket, "registry/a/two", b"22")
    assert storage.find("a") == {"a/two": 2}


def test_a_missing_bucket_is_not_an_empty_registry(s3: S3Server) -> None:
    storage = open_storage("s3://no-such-bucket/registry", directory=Path())
    for act in (lambda: storage.read("registry.json", 10), lambda: storage.find("adapters")):
        with pytest.raises(SourceError) as caught:
            act()
        assert caught.value.code == "AD214"


@pytest.mark.registries
def test_a_missing_container_is_not_an_empty_registry(azure: AzureServer) -> None:
    storage = open_storage("az://no-such-container/registry", directory=Path())
    for act in (lambda: storage.read("registry.json", 10), lambda: storage.create("one", b"1")):
        with pytest.raises(SourceError) as caught:
            act()
        assert caught.value.code == "AD214"


def test_refused_credentials_are_named_without_them(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.wrong_secret)
    storage = open_storage(f"s3://{bucket}/registry", directory=Path())
    with pytest.raises(SourceError) as caught:
        storage.create("one", b"1")
    assert caught.value.code == "AD220"
    assert s3.wrong_secret not in str(caught.value)


@pytest.mark.registries
def test_azure_says_that_a_file_exists(
    azure: AzureServer,
) -> None:
    storage = open_storage(f"az://{azure.container()}/registry", directory=Path())
    storage.create("one", b"1")
    with pytest.raises(FileExistsError) as caught:
        storage.create("one", b"2")
    assert meaning_of(caught.value) == "exists"


class _AnsweredError(OSError):
    """As the clients' errors: a service's code, or a status."""

    def __init__(self, code: str = "", status: int = 0) -> None:
        self.response: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status}}
        if code:
            self.response["Error"] = {"Code": code}


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (_AnsweredError("PreconditionFailed", 412), "exists"),
        (_AnsweredError("", 412), "exists"),
        (FileExistsError("gs"), "exists"),
        (_AnsweredError("ConditionalRequestConflict", 409), "busy"),
        (_AnsweredError("OperationAborted", 409), "busy"),
        (_AnsweredError("NoSuchUpload", 404), "busy"),
        (_AnsweredError("InvalidBlockList", 400), "busy"),
        (_AnsweredError("AccessDenied", 403), "failed"),
        (_AnsweredError("NoSuchBucket", 404), "failed"),
        (ValueError("?"), "failed"),
    ],
)
def test_a_failed_write_means_one_of_three_things(error: Exception, meaning: str) -> None:
    assert meaning_of(error) == meaning


def test_a_conflict_over_azure_other_than_an_existing_file_is_a_collision() -> None:
    class ConflictError(Exception):
        error_code = "BlobBeingRehydrated"
        response = SimpleNamespace(status_code=409)

    try:
        try:
            raise ConflictError
        except ConflictError:
            raise FileExistsError("blob")  # noqa: B904 - as adlfs does
    except FileExistsError as error:
        assert meaning_of(error) == "busy"


class StaleListing:
    """A storage whose listing does not change any more."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seen: dict[str, Mapping[str, int]] = {}
        self.url = storage.url
        self.creates = self.lists = True
        self.read = storage.read
        self.create = storage.create
        self.remove = storage.remove

    def find(self, folder: str) -> Mapping[str, int]:
        return self._seen.setdefault(folder, self._storage.find(folder))


def test_a_stale_listing_loses_no_value_of_a_series(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    stale = StaleListing(storage)
    assert stale.find("s") == {}
    for number in range(5):
        append(
            storage, "s", lambda _, n=number: {"n": n}, last_two(storage, "s", storage.find("s"))[1]
        )
    mine = append(stale, "s", lambda _: {"n": "mine"}, last_two(stale, "s", stale.find("s"))[1])
    assert mine is not None
    assert mine.number == 6
    assert numbers_in("s", storage.find("s")) == [1, 2, 3, 4, 5, 6]


def test_a_file_that_exists_and_cannot_be_read_is_a_contradiction(tmp_path: Path) -> None:
    class Contradicting(LocalStorage):
        def create(self, path: str, content: bytes | Path) -> None:
            raise FileExistsError(path)

    with pytest.raises(SourceError) as caught:
        write_once(Contradicting(tmp_path), "one", b"1")
    assert caught.value.code == "AD873"


def test_a_file_that_was_removed_meanwhile_is_created_again(tmp_path: Path) -> None:
    class Removing(LocalStorage):
        first = True

        def create(self, path: str, content: bytes | Path) -> None:
            if self.first:
                self.first = False
                raise FileExistsError(path)
            super().create(path, content)

    storage = Removing(tmp_path)
    assert write_once(storage, "one", b"1")
    assert storage.read("one", 2) == b"1"


def test_any_other_filesystem_is_read_and_never_written() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/storage-test/a/one", b"12345")
    storage = open_storage("memory://storage-test", directory=Path())
    assert not storage.creates
    assert storage.find("a") == {"a/one": 5}
    assert storage.find("b") == {}
    assert storage.read("a/one", 3) == b"123"
    with pytest.raises(FileNotFoundError):
        storage.read("a/two", 3)
    for act in (lambda: storage.create("a/two", b"2"), lambda: storage.remove("a/one")):
        with pytest.raises(SourceError) as caught:
            act()
        assert caught.value.code == "AD871"
    assert memory.cat("/storage-test/a/one") == b"12345"
