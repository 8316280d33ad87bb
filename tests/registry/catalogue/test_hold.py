"""Holds and removals that are old: neither a publisher nor a gc relies on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapterdock.registry.catalogue import hold as holding
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.storages.layout import blob_file
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import contents, registry
from support.schedules import Memory


def test_a_publisher_renews_its_hold_before_it_is_old(tmp_path: Path) -> None:
    """Contents that vanished while it was old are uploaded again."""
    team = registry(tmp_path / "registry")
    files = contents(tmp_path / "files", "one")
    now = 0.0

    class Slow(LocalStorage):
        def create(self, path: str, content: bytes | Path) -> None:
            nonlocal now
            super().create(path, content)
            if path.startswith("blobs/") and now == 0:  # it took long, and its hold was ignored
                now = 2 * holding.RENEWED
                assert collect(team, grace=-1).removed

    slow = Slow(tmp_path / "registry")
    hold = holding.Hold(slow, list(files), 1.0, clock=lambda: now)
    hold.take()
    (first,) = slow.find("holds")
    assert not hold.renew()
    slow.create(blob_file(*files), *files.values())
    assert hold.renew()
    (second,) = slow.find("holds")
    assert first != second
    assert not slow.find("blobs")  # so the publisher looks again, and uploads
    slow.create(blob_file(*files), *files.values())
    assert not hold.renew()
    assert not collect(team, grace=1000).removed
    hold.release()
    assert not slow.find("holds")


def test_a_gc_that_was_stopped_for_long_removes_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = sha256_bytes(b"one")
    for slow_step in range(1, 12):
        storage = Memory({blob_file(digest): b"one"})
        ticks = itertools.count()

        def clock(ticks: Iterator[int] = ticks, slow_step: int = slow_step) -> float:
            return 0.0 if next(ticks) < slow_step else holding.LEAST_GRACE

        done = collect(Catalogue(storage, "id"), clock=clock)
        in_time = slow_step > 2  # when it began, when it announced, when it removes
        assert bool(done.removed) == in_time
        assert bool(done.left) != in_time
        assert bool(storage.find("blobs")) != in_time
        assert collect(Catalogue(storage, "id"), clock=lambda: 0.0).removed or in_time
