"""The contract of every storage that a registry can lie on."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import StoreError
from adapterdock.registry.catalogue.local_storage import LocalStorage
from adapterdock.registry.catalogue.storage import Storage, write_once


@pytest.fixture(params=["links", "renames"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    if request.param == "renames":  # a disk without hard links

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return LocalStorage(tmp_path / "registry")


def test_a_created_file_is_read_and_listed_at_once(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"large")
    storage.create("a/b/one.json", b"1")
    storage.create("a/two", tmp_path / "large")
    storage.create("ab/three", b"333")
    assert storage.read("a/b/one.json", 10) == b"1"
    assert storage.read("a/two", 3) == b"lar"
    assert storage.find("a") == {"a/b/one.json": 1, "a/two": 5}
    assert storage.find("nothing") == {}


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


def test_of_many_writers_of_one_file_exactly_one_wins(storage: Storage) -> None:
    for number in range(20):
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
    assert len(storage.find("race")) == 20


def test_writing_the_same_bytes_again_has_succeeded(storage: Storage) -> None:
    assert write_once(storage, "one", b"1")
    assert write_once(storage, "one", b"1")
    assert not write_once(storage, "one", b"12")
    assert not write_once(storage, "one", b"")


def test_a_failed_write_leaves_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError) as caught:
        storage.create("a/one", b"1")
    assert "No space" in str(caught.value)
    assert not list((tmp_path / "registry").rglob("*one*"))


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
