"""Searching one registry: many versions, and a damaged index."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.index_file import index_path
from adapterdock.registry.catalogue.search_index import Query
from adapterdock.registry.catalogue.take_snapshot import newest_snapshot
from adapterdock.registry.search import search
from adapterdock.registry.store.store import Store
from support.many_versions import many_versions
from support.published import Counted

COUNT = 3000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return many_versions(tmp_path_factory.mktemp("many") / "registry", COUNT)


def test_a_first_search_reads_one_snapshot_and_the_next_nothing_but_the_journals_end(
    many: Catalogue, tmp_path: Path
) -> None:
    counted = Counted(many.storage)
    catalogue, store = Catalogue(counted, many.id), Store(tmp_path / "cache")
    assert search(catalogue, Query("refunds", limit=5), store).total > 100
    reads = [path for what, path in counted.calls if what == "read"]
    assert sum("snapshots/" in path for path in reads) == 1
    assert len(reads) < 10
    counted.calls.clear()
    assert search(catalogue, Query("sales/refunds", limit=5), store).total > 50
    assert len(counted.calls) == 2


def test_the_rows_of_a_snapshot_and_of_the_journal_are_the_same(
    many: Catalogue, tmp_path: Path
) -> None:
    small = many_versions(tmp_path / "small", 60, snapshot=False)
    hits = search(small, Query(), Store(tmp_path / "cache"))
    expected = {row.key: row for row in newest_snapshot(many).rows}
    assert len(hits.rows) == 60
    assert all(expected[row.key] == row for row in hits.rows)


def test_an_index_that_turns_out_to_be_damaged_is_not_used(many: Catalogue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    before = search(many, Query("refunds"), store)
    path = index_path(store, many)
    raw = bytearray(path.read_bytes())
    for page in range(8, len(raw) // 4096, 2):
        raw[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(raw)
    assert search(many, Query("refunds"), store) == before
    assert search(many, Query("refunds"), store) == before
