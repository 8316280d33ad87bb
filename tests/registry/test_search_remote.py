"""Searching a registry in a bucket: what it costs, and that it finds everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import OfflineError
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.catalogue.search_index import Query
from adapterdock.registry.catalogue.take_snapshot import take_snapshot
from adapterdock.registry.search import search, search_all
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


def test_offline_a_bucket_is_searched_as_it_was_last_time(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{s3.bucket()}/registry"
    made = init_registry(open_storage(url, directory=tmp_path))
    publish(made, tmp_path / "files", "1.0.0")
    store, query = Store(tmp_path / "cache"), Query("refunds")
    with pytest.raises(OfflineError):
        search_all(query, store, registry=url, offline=True)
    config = tmp_path / "config.toml"
    config.write_text(f'[registries]\nteam = "{url}"\n')
    monkeypatch.setenv("ADAPTERDOCK_CONFIG", str(config))
    (without,) = search_all(query, store, offline=True)
    assert without.hits is None and without.problems
    (online,) = search_all(query, store)
    publish(made, tmp_path / "files", "2.0.0")
    for registry in (None, "team", url):
        (found,) = search_all(query, store, registry=registry, offline=True)
        assert found.hits == online.hits and found.hits is not None
        assert found.as_of is not None and found.as_of.startswith("20") and not found.problems
    (again,) = search_all(query, store)
    assert again.as_of is None and again.hits is not None and again.hits.total == 2
