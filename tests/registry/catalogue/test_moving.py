"""Verifying, mirrors and gc on every backend."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import StoreError
from adapterdock.registry.catalogue import hold as holding
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.hold import DELETE, held, mark_bytes
from adapterdock.registry.catalogue.mirror import mirror
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.storages.layout import blob_file, gc_closed, gc_file, gc_mark
from adapterdock.registry.storages.storage import Storage
from support.places import Place
from support.published import contents, entry, publish, registry

DIGEST = "sha256:" + "ab" * 32


def test_a_large_file_comes_in_pieces_and_times_only_grow(place: Place, tmp_path: Path) -> None:
    storage = place.storage()
    raw = secrets.token_bytes((16 << 20) + 5)
    (tmp_path / "large").write_bytes(raw)
    storage.create("x/large", tmp_path / "large")
    storage.create("x/empty", b"")
    assert b"".join(storage.chunks("x/large")) == raw
    assert b"".join(storage.chunks("x/empty")) == b""
    with pytest.raises(FileNotFoundError):
        list(storage.chunks("x/nothing"))
    times = storage.times("x")
    assert set(times) == {"x/large", "x/empty"}
    assert times["x/large"] <= times["x/empty"] + 1 < times["x/large"] + 600
    assert storage.times("nothing") == {}


def test_a_registry_is_verified_mirrored_and_collected(place: Place, tmp_path: Path) -> None:
    team = place.init("Team")
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)
        promote(team, "refunds", version, "prod")
    team.storage.create(blob_file(DIGEST), b"orphan")
    found = verify_registry(team, patience=0)
    assert [f.code for f in found.findings] == ["AD847"]  # the made-up orphan
    assert collect(team).removed == (DIGEST,)
    assert verify_registry(team, patience=0).findings == ()
    copy = Place(place.kind, f"{place.url}-mirror", place.directory)
    done = mirror(team, copy.storage(), local=place.kind in ("links", "renames"))
    assert done.names == ("refunds",)
    assert verify_registry(copy.open(), patience=0).findings == ()
    assert mirror(team, copy.storage()).files == ()
    team.storage.remove(blob_file(next(iter(contents(tmp_path / "files", "weights of 1.0.0")))))
    assert [f.code for f in verify_registry(place.open()).findings] == ["AD847"]


def test_the_hold_of_a_publisher_counts_until_its_grace_is_over(
    place: Place, tmp_path: Path
) -> None:
    team = place.init()
    storage = team.storage
    storage.create(blob_file(DIGEST), b"being published")
    with held(storage, [DIGEST]):
        done = collect(place.open(), grace=3600)
        assert (done.removed, done.kept) == ((), (DIGEST,))
        assert len(storage.find("holds")) == 1
        assert collect(place.open(), grace=-3600).removed == (DIGEST,)
        assert not storage.find("holds")
    assert not storage.find("holds")


def _announced(storage: Storage, digest: str) -> None:
    """A gc was killed after it said that it removes a content."""
    storage.create(blob_file(digest), b"old")
    storage.create(gc_file(1), f'{{"condemned":["{digest}"]}}'.encode())
    storage.create(gc_mark(1, digest), mark_bytes(DELETE))


def test_a_removal_that_does_not_end_stops_a_publisher_until_it_is_over(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = place.init()
    files = contents(tmp_path / "files", "one")
    (digest,) = files
    _announced(team.storage, digest)
    team.storage.remove(blob_file(digest))
    monkeypatch.setattr(holding, "PATIENCE", 0.3)
    with pytest.raises(StoreError) as caught:
        publish_entry(team, entry("1.0.0", files), files)
    assert caught.value.code == "AD846"
    assert not team.storage.find("adapters")
    assert not team.storage.find("holds")
    monkeypatch.setattr(holding, "REMOVAL", -3600)  # an hour later
    publish_entry(team, entry("1.0.0", files), files)
    assert team.storage.find("blobs")


def test_a_run_that_was_killed_is_closed_by_a_later_one(place: Place) -> None:
    team = place.init()
    _announced(team.storage, DIGEST)
    collect(team, grace=3600)
    assert gc_closed(1) not in team.storage.find("gc")
    collect(team, grace=-3600)
    left = [path for n in (1, 2, 3) for path in (gc_closed(n), gc_file(n))]
    assert sorted(team.storage.find("gc")) == sorted(left)
    assert not team.storage.find("blobs")


def test_files_of_killed_writers_are_removed_after_the_grace(tmp_path: Path) -> None:
    team = registry(tmp_path)
    left = tmp_path / "blobs/sha256/.abc.0123abcd.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    collect(team, grace=3600)
    assert left.exists()
    collect(team, grace=-1)
    assert not left.exists()
    assert (tmp_path / ".gitattributes").exists()
