"""From a registry's URL to its storage, and registries on web servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import OfflineError, SourceError
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.storages.http_storage import HttpStorage
from adapterdock.registry.storages.local_storage import LocalStorage
from support.s3_server import S3Server
from support.web import WebServer


@pytest.mark.parametrize(
    "url",
    [
        *("hf://team/adapters", "registry://team/refunds@1.0.0", "team/refunds", "", " ./x"),
        *("s3://", "s3://key:secret@bucket/x", "https://host/x?token=1", "C:\\adapters"),
    ],
)
def test_a_url_that_is_no_folder_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_storage(url, directory=tmp_path)
    assert caught.value.code == "AD872"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["./registry", "file://{}/registry", "{}/registry"])
def test_a_local_folder_opens_without_network_and_is_made_by_the_first_write(
    url: str, tmp_path: Path
) -> None:
    storage = open_storage(url.format(tmp_path), directory=tmp_path, offline=True)
    assert isinstance(storage, LocalStorage)
    assert storage.find("") == {}
    storage.create("one", b"1")
    assert (tmp_path / "registry" / "one").read_bytes() == b"1"


def test_a_local_folder_takes_no_storage_options(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_storage("./registry", directory=tmp_path, storage_options={"anon": True})
    assert caught.value.code == "AD232"


@pytest.mark.parametrize("url", ["s3://bucket/x", "https://host/x"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_opens_no_remote_registry(
    url: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "environment":
        monkeypatch.setenv("ADAPTERDOCK_OFFLINE", "1")
    with pytest.raises(OfflineError):
        open_storage(url, directory=tmp_path, offline=by == "argument")


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_storage("nonsense://host/x", directory=tmp_path)
    assert caught.value.code == "AD231"


def test_credentials_go_only_where_the_user_sends_them(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = {"endpoint_url": s3.endpoint}
    strange = open_storage(
        f"s3://{bucket}/x", directory=tmp_path, storage_options=options, vouches=lambda _: False
    )
    with pytest.raises(SourceError) as caught:
        strange.create("one", b"1")  # without the user's keys
    assert caught.value.code == "AD220"
    chosen = open_storage(
        f"s3://{bucket}/x", directory=tmp_path, storage_options=options, vouches=lambda _: True
    )
    chosen.create("one", b"1")
    assert chosen.read("one", 10) == b"1"


def test_a_web_server_is_read_by_names(web: WebServer, tmp_path: Path) -> None:
    web.files["/team/a/one.json"] = b"12345"
    web.files["/team/empty"] = b""
    storage = open_storage(f"{web.url}/team", directory=tmp_path)
    assert isinstance(storage, HttpStorage)
    assert storage.read("a/one.json", 100) == b"12345"
    assert storage.read("a/one.json", 3) == b"123"
    assert storage.read("empty", 3) == b""
    assert [method for method, _, _ in web.requests] == ["GET"] * 3
    with pytest.raises(FileNotFoundError):
        storage.read("a/two.json", 100)


def test_a_page_for_every_name_is_not_a_file(web: WebServer, tmp_path: Path) -> None:
    web.catch_all = ("text/html; charset=utf-8", b"<html>Nothing here</html>")
    with pytest.raises(FileNotFoundError):
        open_storage(f"{web.url}/team", directory=tmp_path).read("a/one.json", 100)


def test_an_endless_answer_is_read_to_the_limit(web: WebServer, tmp_path: Path) -> None:
    web.files["/team/one"] = b"12345"
    web.strange = ["endless"]
    found = open_storage(f"{web.url}/team", directory=tmp_path).read("one", 1000)
    assert found == b"12345" + bytes(995)


def test_an_answer_that_breaks_off_is_asked_for_again(web: WebServer, tmp_path: Path) -> None:
    web.files["/team/one"] = b"12345"
    web.strange = ["cut"]
    assert open_storage(f"{web.url}/team", directory=tmp_path).read("one", 1000) == b"12345"


@pytest.mark.parametrize(("status", "code"), [(401, "AD221"), (403, "AD220"), (500, "AD223")])
def test_a_refusal_of_a_web_server_is_not_a_missing_file(
    web: WebServer, tmp_path: Path, status: int, code: str
) -> None:
    web.files["/team/one"] = b"1"
    web.status["/team/one"] = status
    with pytest.raises(SourceError) as caught:
        open_storage(f"{web.url}/team", directory=tmp_path).read("one", 10)
    assert caught.value.code == code


def test_an_encoded_answer_is_refused(web: WebServer, tmp_path: Path) -> None:
    web.files["/team/one"] = b"12345"
    web.strange = ["gzip"]
    with pytest.raises(SourceError) as caught:
        open_storage(f"{web.url}/team", directory=tmp_path).read("one", 1000)
    assert caught.value.code == "AD227"


def test_a_redirection_goes_only_where_a_policy_allows(web: WebServer, tmp_path: Path) -> None:
    web.files["/other/one"] = b"1"
    web.redirects["/team/one"] = f"{web.url}/other/one"
    assert open_storage(f"{web.url}/team", directory=tmp_path).read("one", 10) == b"1"
    held = open_storage(
        f"{web.url}/team", directory=tmp_path, permits=lambda url: "/other/" not in url
    )
    with pytest.raises(SourceError):
        held.read("one", 10)


def test_a_web_server_is_never_listed_or_written(web: WebServer, tmp_path: Path) -> None:
    storage = open_storage(f"{web.url}/team", directory=tmp_path)
    assert not storage.creates
    assert not storage.lists
    for act, code in (
        (lambda: storage.find("adapters"), "AD874"),
        (lambda: storage.create("one", b"1"), "AD871"),
        (lambda: storage.remove("one"), "AD871"),
    ):
        with pytest.raises(SourceError) as caught:
            act()
        assert caught.value.code == code
    assert not web.requests
