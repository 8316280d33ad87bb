"""The contract of every storage that a registry can lie on."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, StoreError
from adapterdock.registry.files.digests import PREFIX, sha256_file
from adapterdock.registry.storages.layout import PROBE
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.storages.storage import Storage, create_verified, write_once
from support.places import Place, place_of


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.storage()


@pytest.fixture(params=["links", "renames"])
def local(request: pytest.FixtureRequest) -> Place:
    return place_of(request, request.param)


def test_a_created_file_is_read_and_listed_at_once(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"large")
    storage.create("a/b/one.json", b"1")
    storage.create("a/two", tmp_path / "large")
    storage.create("ab/three", b"333")
    assert storage.read("a/b/one.json", 10) == b"1"
    assert storage.read("a/two", 3) == b"lar"
    assert storage.find("a") == {"a/b/one.json": 1, "a/two": 5}
    assert storage.find("nothing") == {}
    assert storage.find("a/two") == {}
    everything = {**storage.find("a"), "ab/three": 3}
    assert {path: size for path, size in storage.find("").items() if path != PROBE} == everything


def test_a_missing_file_is_not_found_and_removed_without_error(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("a/one", 10)
    storage.create("a/one", b"1")
    storage.remove("a/one")
    storage.remove("a/one")
    with pytest.raises(FileNotFoundError):
        storage.read("a/one", 10)


def test_a_file_is_never_created_twice(storage: Storage) -> None:
    storage.create("one", b"1")
    with pytest.raises(FileExistsError):
        storage.create("one", b"2")
    assert storage.read("one", 10) == b"1"


def test_a_file_is_never_created_twice_from_a_local_file(storage: Storage, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 1_000_000)
    storage.create("blob", large)
    large.write_bytes(b"y")
    with pytest.raises(FileExistsError):
        storage.create("blob", large)
    assert storage.read("blob", 1) == b"x"
    assert storage.find("") | {PROBE: 16} == {"blob": 1_000_000, PROBE: 16}


def test_an_empty_file_is_read_as_empty(storage: Storage) -> None:
    storage.create("empty", b"")
    assert storage.read("empty", 10) == b""
    assert storage.find("")["empty"] == 0


def test_what_another_one_writes_is_seen_after_a_listing(place: Place) -> None:
    storage, other = place.storage(), place.storage()
    storage.create("a/one", b"1")
    assert storage.find("a") == {"a/one": 1}
    other.create("a/two", b"22")
    assert storage.find("a") == {"a/one": 1, "a/two": 2}
    assert storage.read("a/two", 10) == b"22"
    assert not write_once(storage, "a/two", b"23")
    other.remove("a/one")
    assert storage.find("a") == {"a/two": 2}
    with pytest.raises(FileNotFoundError):
        storage.read("a/one", 10)


def test_of_many_writers_of_one_file_exactly_one_wins(storage: Storage, place: Place) -> None:
    rounds = 3 if place.kind == "s3" else 20  # SeaweedFS lets writers of one file wait seconds
    for number in range(rounds):
        won: list[bytes] = []
        barrier = threading.Barrier(8)

        def write(
            content: bytes,
            won: list[bytes] = won,
            barrier: threading.Barrier = barrier,
            path: str = f"race/{number}",
        ) -> None:
            barrier.wait()
            if write_once(storage, path, content):
                won.append(content)

        threads = [threading.Thread(target=write, args=(bytes([n]) * 1000,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert storage.read(f"race/{number}", 2000) == won[0]
    assert len(storage.find("race")) == rounds


def test_writing_the_same_bytes_again_has_succeeded(storage: Storage) -> None:
    assert write_once(storage, "one", b"1")
    assert write_once(storage, "one", b"1")
    assert not write_once(storage, "one", b"12")
    assert not write_once(storage, "one", b"")


def test_a_failed_write_leaves_nothing(
    local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError) as caught:
        local.storage().create("a/one", b"1")
    assert "No space" in str(caught.value)
    assert not list(tmp_path.rglob("*one*"))


def test_a_disk_that_cannot_create_exclusively_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Without:
        def __init__(self, *_: Any, **__: Any) -> None: ...

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", Without)
    with pytest.raises(StoreError):
        LocalStorage(tmp_path).create("one", b"1")
    assert not list(tmp_path.iterdir())


LARGE = 33 << 20
"""More bytes than S3 gets in one request from us."""


def large_file(path: Path, first: bytes) -> str:
    """A file whose bytes differ from place to place; its digest."""
    path.write_bytes(first + b"".join(n.to_bytes(4, "big") * 256 for n in range(LARGE >> 10)))
    return sha256_file(path)


def digest_of(storage: Storage, path: str) -> str:
    return PREFIX + hashlib.sha256(b"".join(storage.chunks(path))).hexdigest()


def test_of_two_writers_of_a_large_file_one_wins_and_it_is_complete(
    place: Place, tmp_path: Path
) -> None:
    digests = {name: large_file(tmp_path / name, name.encode()) for name in ("a", "b")}
    won: list[str] = []
    barrier = threading.Barrier(2)

    def write(name: str) -> None:
        storage = place.storage()
        barrier.wait()
        with suppress(FileExistsError):
            create_verified(storage, "large", tmp_path / name, digests[name])
            won.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # on SeaweedFS two uploads that end at the same moment both succeed: see test_s3_upload
    assert len(won) == 1 or (place.kind == "s3" and len(won) == 2)
    storage = place.storage()
    assert digest_of(storage, "large") in {digests[name] for name in won}
    assert storage.find("")["large"] == (tmp_path / won[0]).stat().st_size


@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_changed_is_never_created(place: Place, tmp_path: Path, large: bool) -> None:
    path, storage = tmp_path / "file", place.storage()
    if large:
        digest = large_file(path, b"")
    else:
        path.write_bytes(b"12345")
        digest = sha256_file(path)
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"x")
    with pytest.raises(IntegrityError):
        create_verified(storage, "blob", path, digest)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(IntegrityError):
        create_verified(storage, "blob", path, digest)
    assert "blob" not in storage.find("")
    create_verified(storage, "blob", path, sha256_file(path))
    assert digest_of(storage, "blob") == sha256_file(path)
