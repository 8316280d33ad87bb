"""The index in the cache: current, rebuilt where it is unusable, shared by processes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from adapterdock.registry.catalogue import index_file as module
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.index_file import current_index, forget_index, index_path
from adapterdock.registry.catalogue.promote import mark
from adapterdock.registry.catalogue.search_index import Query
from adapterdock.registry.catalogue.take_snapshot import take_snapshot
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.store.store import Store
from support.published import Counted, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    publish(made, tmp_path / "files", "1.0.0", tags=("support",))
    publish(made, tmp_path / "files", "1.1.0")
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def found(catalogue: Catalogue, store: Store, text: str = "refunds") -> list[str]:
    with current_index(catalogue, store) as (index, _):
        rows = index.search(Query(text)).rows
        return sorted(" ".join((row.version, *row.marks)) for row in rows)


def test_what_is_published_and_marked_later_is_found(
    team: Catalogue, store: Store, files: Path
) -> None:
    assert found(team, store) == ["1.0.0", "1.1.0"]
    publish(team, files, "2.0.0")
    mark(team, "refunds", "1.0.0", "yank")
    assert found(team, store) == ["1.0.0 yanked", "1.1.0", "2.0.0"]
    mark(team, "refunds", "1.0.0", "unyank")
    mark(team, "refunds", "2.0.0", "deprecate")
    assert found(team, store) == ["1.0.0", "1.1.0", "2.0.0 deprecated"]


def test_a_current_index_costs_two_reads(team: Catalogue, store: Store) -> None:
    found(team, store)
    counted = Counted(team.storage)
    assert found(Catalogue(counted, team.id), store) == ["1.0.0", "1.1.0"]
    assert counted.calls == [
        ("read", "journal/00000002.json"),
        ("read", "journal/00000003.json"),
    ]


def test_only_what_the_snapshot_does_not_have_is_read(
    team: Catalogue, store: Store, files: Path
) -> None:
    take_snapshot(team)
    publish(team, files, "2.0.0")
    counted = Counted(team.storage)
    assert found(Catalogue(counted, team.id), store) == ["1.0.0", "1.1.0", "2.0.0"]
    entries = [path for _, path in counted.calls if "/versions/" in path]
    assert entries == ["adapters/refunds/versions/2.0.0.json"]


def test_an_index_that_is_far_behind_is_built_from_a_newer_snapshot(
    team: Catalogue, store: Store, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(team, store)
    monkeypatch.setattr(module, "EVERY", 2)
    for n in range(4):
        publish(team, files, f"3.0.{n}")
    take_snapshot(team)
    counted = Counted(team.storage)
    assert len(found(Catalogue(counted, team.id), store)) == 6
    assert not [path for _, path in counted.calls if "/versions/" in path]


@pytest.mark.parametrize("damage", ["nothing", "text", "half", "format", "older", "other", "page"])
def test_an_index_that_cannot_be_used_is_built_anew(
    team: Catalogue, store: Store, damage: str
) -> None:
    found(team, store)
    path = index_path(store, team)
    raw = path.read_bytes()
    if damage in ("nothing", "text"):
        path.write_bytes(b"" if damage == "nothing" else b"x" * 9000)
    elif damage == "half":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "page":
        path.write_bytes(raw[:4096] + b"\xff" * 4096 + raw[8192:])
    else:
        key = {"format": "format", "older": "version", "other": "registry"}[damage]
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE meta SET value = 'x' WHERE key = ?", (key,))
        connection.close()
    try:
        assert found(team, store) == ["1.0.0", "1.1.0"]
    except sqlite3.DatabaseError:
        forget_index(team, store)
        assert found(team, store) == ["1.0.0", "1.1.0"]


@pytest.mark.parametrize("added", [0, 1, 2])
def test_a_journal_that_went_back_is_read_from_its_start(
    team: Catalogue, store: Store, files: Path, tmp_path: Path, added: int
) -> None:
    place, backup = Path(team.storage.url), tmp_path / "backup"
    shutil.copytree(place, backup)
    publish(team, files, "2.0.0")
    assert found(team, store) == ["1.0.0", "1.1.0", "2.0.0"]
    shutil.rmtree(place)
    shutil.copytree(backup, place)
    others = [f"9.0.{n}" for n in range(added)]
    for version in others:
        publish(team, files, version)
    assert found(team, store) == ["1.0.0", "1.1.0", *others]


def test_a_cache_that_cannot_be_written_works_in_memory(
    team: Catalogue, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert found(team, Store(tmp_path / "file" / "cache")) == ["1.0.0", "1.1.0"]


def test_a_read_only_cache_with_an_older_index_works_in_memory(
    team: Catalogue, store: Store, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(team, store)

    def read_only(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr(module, "_open", read_only)
    before = index_path(store, team).read_bytes()
    assert found(team, store) == ["1.0.0", "1.1.0"]
    publish(team, files, "2.0.0")
    assert found(team, store) == ["1.0.0", "1.1.0", "2.0.0"]
    assert index_path(store, team).read_bytes() == before


def test_an_index_that_another_process_keeps_locked_is_changed_in_memory(
    team: Catalogue, store: Store, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(team, store)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    other = sqlite3.connect(index_path(store, team), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    publish(team, files, "2.0.0")
    assert found(team, store) == ["1.0.0", "1.1.0", "2.0.0"]
    other.execute("ROLLBACK")
    other.close()


def test_several_threads_and_processes_share_one_file(
    team: Catalogue, store: Store, files: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from adapterdock.registry.catalogue.catalogue import open_catalogue\n"
        "from adapterdock.registry.catalogue.index_file import current_index\n"
        "from adapterdock.registry.storages.local_storage import LocalStorage\n"
        "from adapterdock.registry.catalogue.search_index import Query\n"
        "from adapterdock.registry.store.store import Store\n"
        "team, store = open_catalogue(LocalStorage(Path(sys.argv[1]))), Store(Path(sys.argv[2]))\n"
        "last = 0\n"
        "while last < 12:\n"
        "    with current_index(team, store) as (index, _):\n"
        "        now = index.search(Query('refunds')).total\n"
        "        assert now >= last, (now, last)\n"
        "        last = now\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, team.storage.url, str(store.root)]
    children = [subprocess.Popen(command, env=environment) for _ in range(2)]
    failed: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(20):
                found(open_catalogue(LocalStorage(Path(team.storage.url))), store)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(10):
        publish(team, files, f"4.0.{n}")
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    assert not failed
    assert len(found(team, store)) == 12
