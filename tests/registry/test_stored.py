"""A locked folder works from the store alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from adapterdock.manifests.errors import OfflineError
from adapterdock.manifests.source import Source
from adapterdock.registry.digests import sha256_bytes
from adapterdock.registry.facts import FileFact
from adapterdock.registry.fetch import fetch
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.store import Store
from adapterdock.registry.stored import StoredFolder, stored_folder
from support.cache import put
from support.folders import MemoryFolder, fact

FILES = {"adapter_config.json": b"{}", "sub/w.safetensors": bytes(range(100))}
FACTS = [fact(name, data, version="etag") for name, data in FILES.items()]
SOURCE = Source.parse("s3://bucket/folder")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    fetch(MemoryFolder(FILES), FACTS, store)
    return store


def stored(store: Store, facts: list[FileFact] = FACTS) -> StoredFolder:
    folder = stored_folder(SOURCE, facts, store)
    assert folder is not None
    return folder


def test_it_lists_reads_and_fetches_as_its_source_would(store: Store, tmp_path: Path) -> None:
    folder: Folder = stored(store)
    assert folder.files() == {fact.path: fact for fact in FACTS}
    assert folder.read("sub/w.safetensors", 8, 4) == bytes([8, 9, 10, 11])
    assert folder.read("adapter_config.json") == b"{}"
    assert folder.local("adapter_config.json") == store.object_path(sha256_bytes(b"{}"))
    assert folder.download("adapter_config.json", tmp_path / "x") == folder.local(
        "adapter_config.json"
    )
    assert not (tmp_path / "x").exists()
    assert folder.bytes_read == 0
    assert (folder.source, folder.pinned, folder.revision) == (SOURCE, SOURCE, None)
    got = fetch(folder, FACTS, store)
    assert {name: file.path.read_bytes() for name, file in got.items()} == FILES
    assert [file.fact for file in got.values()] == FACTS


def test_a_commit_is_its_pin(store: Store) -> None:
    folder = stored_folder(Source.parse("hf://org/name@main"), FACTS, store, revision="c" * 40)
    assert folder is not None
    assert (str(folder.pinned), folder.revision) == ("hf://org/name@" + "c" * 40, "c" * 40)


def test_a_partial_or_damaged_store_or_lock_gives_none(store: Store) -> None:
    assert stored_folder(SOURCE, [*FACTS, fact("more", b"absent")], store) is None
    assert stored_folder(SOURCE, [replace(FACTS[0], sha256=None)], store) is None
    path = store.object_path(sha256_bytes(b"{}"))
    path.chmod(0o644)
    path.write_bytes(b"[]")
    assert stored_folder(SOURCE, FACTS, store) is None


def test_what_goes_meanwhile_is_a_finding(store: Store, tmp_path: Path) -> None:
    folder = stored(store)
    store.object_path(sha256_bytes(b"{}")).unlink()
    for act in (
        lambda: folder.read("adapter_config.json"),
        lambda: folder.download("adapter_config.json", tmp_path / "x"),
        lambda: folder.read("never there"),
    ):
        with pytest.raises(OfflineError) as caught:
            act()
        assert caught.value.code == "AD622"
    assert folder.local("adapter_config.json") is None


def test_a_file_of_the_right_digest_from_anywhere_will_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    for content in FILES.values():
        put(store, content)
    assert stored(store).read("adapter_config.json") == b"{}"
