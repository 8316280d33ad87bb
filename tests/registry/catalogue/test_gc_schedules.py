"""Publishing and gc in every order of their steps, killed anywhere: no entry lacks a content."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.catalogue import collect as collecting
from adapterdock.registry.catalogue import hold as holding
from adapterdock.registry.catalogue import mirror as mirroring
from adapterdock.registry.catalogue import mirror_copy as copying
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.hold import digests_in
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.records import noted
from adapterdock.registry.records.entry import Entry
from adapterdock.registry.records.series import Value, canonical
from adapterdock.registry.storages.layout import blob_file
from adapterdock.registry.storages.storage import Storage
from support.published import contents, entry
from support.schedules import Exploration, Files, Memory, Process

MOST = 3
"""How often one of three processes is interrupted by another one; of two, any number of times."""


def in_turn(act: Callable[[object], object], items: Sequence[object], _: int) -> list[object]:
    return [act(item) for item in items]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No threads, no waiting, and no journal, which shares no file with gc."""
    monkeypatch.setattr(collecting, "each", in_turn)

    def note(*_: object) -> Value:
        return Value(1, b"{}")

    monkeypatch.setattr(noted, "note", note)
    monkeypatch.setattr(holding, "PATIENCE", 2)
    monkeypatch.setattr(holding, "Hold", _Hurried)


class _Hurried(holding.Hold):
    """Looks three times, and gives up."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        ticks = itertools.count()
        self.wait = lambda _: None
        self.clock = lambda: float(next(ticks)) / 2


def publisher(files: Mapping[str, Path], version: str = "1.0.0") -> Process:
    made: Entry = entry(version, files)

    def run(storage: Storage) -> None:
        publish_entry(Catalogue(storage, "id"), made, files, new_name=True)

    return run


def collector(grace: float = 1.0) -> Process:
    def run(storage: Storage) -> None:
        collect(Catalogue(storage, "id"), grace=grace, clock=lambda: 0.0)

    return run


def complete(files: Files) -> None:
    """Every entry has its contents with the right bytes."""
    for path, raw in files.items():
        if path.startswith("adapters/"):
            for digest in digests_in(raw):
                if len(set(digest[7:])) > 1:  # not the made-up digests of the entry itself
                    assert sha256_bytes(files.get(blob_file(digest), b"")) == digest, path


@pytest.fixture
def one(tmp_path: Path) -> Mapping[str, Path]:
    return contents(tmp_path / "files", "one")


def orphans(files: Mapping[str, Path]) -> Files:
    """A registry in which a killed publisher left contents."""
    return {blob_file(digest): path.read_bytes() for digest, path in files.items()}


def explored(start: Files, most: int | None = None, **processes: Process) -> Exploration:
    found = Exploration(start, processes, most)
    found.run(complete)
    return found


@pytest.mark.parametrize("there", [True, False], ids=["orphan", "nothing"])
def test_one_publisher_and_one_gc_in_every_order(one: Mapping[str, Path], there: bool) -> None:
    start = orphans(one) if there else {}
    found = explored(start, p=publisher(one), g=collector())
    assert ("done", "done") in found.endings
    assert found.endings <= {("done", "done"), ("AD846", "done")}
    marks = {raw.split(b'"says":')[1] for f in found.files for raw in f.values() if b"says" in raw}
    assert marks == ({b'"keep"}\n', b'"delete"}\n'} if there else marks)
    for files in found.files:  # killed here, both; later, somebody begins anew
        later = Memory(files)
        collector(grace=-1)(later)
        complete(later.files)
        publisher(one)(later)
        collector(grace=-1)(later)
        complete(later.files)
        assert [p for p in later.files if p.startswith(("blobs", "holds", "adapters"))] == [
            p for p in later.files if p in (blob_file(next(iter(one))), *_entries(later.files))
        ]


def _entries(files: Files) -> list[str]:
    return [path for path in files if path.startswith("adapters/")]


def test_two_contents_of_which_one_is_there(tmp_path: Path) -> None:
    two = contents(tmp_path / "files", "one", "two")
    start = orphans(dict(itertools.islice(two.items(), 1)))
    found = explored(start, p=publisher(two), g=collector())
    assert ("done", "done") in found.endings


def test_two_runs_of_gc_and_a_publisher(one: Mapping[str, Path]) -> None:
    found = explored(orphans(one), 2, p=publisher(one), g=collector(), h=collector())
    assert ("done", "done", "done") in found.endings


def test_two_publishers_and_a_gc(one: Mapping[str, Path]) -> None:
    processes = {"p": publisher(one), "q": publisher(one, "1.0.1"), "g": collector()}
    found = explored(orphans(one), MOST, **processes)
    assert ("done", "done", "done") in found.endings


def test_two_publishers_of_one_version_and_a_gc(one: Mapping[str, Path]) -> None:
    found = explored(orphans(one), MOST, p=publisher(one), q=publisher(one), g=collector())
    assert ("done", "done", "done") in found.endings


def test_a_content_that_was_kept_is_collected_by_a_later_gc(one: Mapping[str, Path]) -> None:
    """The publisher is killed anywhere; a gc, and then one after the grace."""
    found = explored(orphans(one), p=publisher(one), g=collector())
    for files in found.files:
        later = Memory(files)
        collector(grace=-1)(later)
        wanted = {path for path in later.files if path.startswith("blobs")}
        assert bool(wanted) == bool(_entries(later.files))


@pytest.mark.parametrize("without", ["holds", "marks", "looks at runs", "the wait"])
def test_the_search_finds_what_each_part_of_the_protocol_prevents(
    one: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    def nobody(*_: object) -> set[str]:
        return set()

    def nothing(*_: object) -> None: ...

    where, name, instead = {
        "holds": (collecting, "_held_by", nobody),
        "marks": (_Hurried, "_keep", nothing),
        "looks at runs": (holding, "open_runs", nobody),
        "the wait": (_Hurried, "_is_removing", nothing),
    }[without]
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(AssertionError, match=r"p: create adapters/refunds"):
        explored(orphans(one), p=publisher(one), g=collector())


def test_a_mirror_and_a_gc_of_it_in_every_order(
    one: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Memory({"registry.json": b'{"format":1,"id":"aaaaaaaaaaaaaaaa"}'})
    publisher(one)(origin)
    monkeypatch.setattr(mirroring, "each", in_turn)
    monkeypatch.setattr(copying, "each", in_turn)

    def run(storage: Storage) -> None:
        mirroring.mirror(Catalogue(origin, "a" * 16), storage)

    begun = {"mirror.json": canonical({"id": "a" * 16})}  # by one who was killed
    found = explored({**begun, **orphans(one)}, m=run, g=collector())
    assert ("done", "done") in found.endings
    assert found.endings <= {("done", "done"), ("AD846", "done")}
