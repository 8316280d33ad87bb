"""Searching a registry in a bucket: what it costs, and that it finds everything."""

from __future__ import annotations

from pathlib import Path

from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.catalogue.search_index import Query
from adapterdock.registry.catalogue.take_snapshot import take_snapshot
from adapterdock.registry.search import search
from adapterdock.registry.store.store import Store
from support.published import Counted, publish
from support.s3_server import S3Server


def test_a_bucket_is_searched_by_its_snapshot_and_two_requests_after_that(
    s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    storage = open_storage(f"s3://{bucket}/registry", directory=tmp_path)
    made = init_registry(storage)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(made, tmp_path / "files", version)
    assert take_snapshot(made) is not None
    publish(made, tmp_path / "files", "2.0.0")
    counted = Counted(storage)
    catalogue, store = Catalogue(counted, open_catalogue(storage).id), Store(tmp_path / "cache")
    first = search(catalogue, Query("refunds"), store)
    assert sorted(row.version for row in first.rows) == ["1.0.0", "1.1.0", "1.2.0", "2.0.0"]
    entries = [path for _, path in counted.calls if "/versions/" in path]
    assert entries == ["adapters/refunds/versions/2.0.0.json"]
    counted.calls.clear()
    assert search(catalogue, Query("refunds"), store) == first
    assert [what for what, _ in counted.calls] == ["read", "read"]
