"""``kill -9`` at random moments: what is there is valid, and the next run does the right thing."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from adapterdock.registry.catalogue import hold as holding
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.mirror import mirror
from adapterdock.registry.catalogue.promote import history, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.storages.local_storage import LocalStorage
from support.processes import Killer
from support.published import contents, entry, publish, registry

MOMENTS = pytest.mark.parametrize(
    "moments", [pytest.param(200, marks=pytest.mark.slow), 10], ids=["many", "few"]
)


def at(folder: Path) -> Catalogue:
    return open_catalogue(LocalStorage(folder))


def valid(folder: Path) -> None:
    """Nothing is wrong; only lines of the journal may be missing."""
    found = verify_registry(at(folder), complete=False, workers=1)
    assert {finding.code for finding in found.findings} <= {"AD849"}, found.findings


def completed(folder: Path) -> None:
    """The journal is completed, and says everything once."""
    assert not verify_registry(at(folder), patience=0, workers=1).findings
    again = verify_registry(at(folder), patience=0, workers=1)
    assert not again.findings
    assert not again.added
    counts = again.counts
    assert counts["journal"] == counts["entries"] + counts["alias"] + counts["marks"]


@MOMENTS
def test_a_killed_publish_is_absent_or_complete(tmp_path: Path, moments: int) -> None:
    folder = tmp_path / "registry"
    registry(folder)
    big = "x" * 20_000

    def act(turn: int) -> None:
        files = contents(tmp_path / "files", f"one of {turn}", f"two of {turn}")
        publish_entry(at(folder), entry(f"1.0.{turn}", files, description=big), files)

    kill = Killer(lambda: act(10**6))
    for turn in kill.turns(moments):
        kill(lambda turn=turn: act(turn))
        if turn % 25 == 0:
            valid(folder)
        before = at(folder).listing("refunds")
        act(turn)
        assert len(at(folder).listing("refunds").versions) <= len(before.versions) + 1
        assert at(folder).entry("refunds", f"1.0.{turn}")
    completed(folder)
    collect(at(folder), grace=-1, workers=1)
    assert not LocalStorage(folder).find("holds")
    completed(folder)


@MOMENTS
def test_a_killed_promotion_happened_or_not(tmp_path: Path, moments: int) -> None:
    folder = tmp_path / "registry"
    team = registry(folder)
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)

    def act(turn: int) -> None:
        promote(at(folder), "refunds", f"1.{turn % 2}.0", "prod", by=f"{turn}")

    kill = Killer(lambda: act(10**6 + 1))
    for turn in kill.turns(moments):
        kill(lambda turn=turn: act(turn))
        values = history(at(folder), "refunds", "prod")  # which chain
        act(turn)
        after = history(at(folder), "refunds", "prod")
        assert after[-1].version == f"1.{turn % 2}.0"
        assert after[: len(values)] == values
        assert [value.by for value in after].count(f"{turn}") <= 1
    assert all(
        one.version != two.version
        for one, two in itertools.pairwise(history(at(folder), "refunds", "prod"))
    )
    completed(folder)


@MOMENTS
def test_a_killed_mirror_is_valid_and_continued(tmp_path: Path, moments: int) -> None:
    folder = tmp_path / "registry"
    team = registry(folder)
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)
        promote(team, "refunds", version, "prod")
    wanted = _files(folder)

    def act(turn: int) -> None:
        mirror(at(folder), LocalStorage(tmp_path / f"mirror{turn}"), local=True, workers=2)

    kill = Killer(lambda: act(10**6))
    for turn in kill.turns(moments):
        place = tmp_path / f"mirror{turn}"
        kill(lambda turn=turn: act(turn))
        if (place / "registry.json").exists():
            assert (place / "mirror.json").exists()
            valid(place)
        act(turn)
        assert _files(place) == wanted


def _files(folder: Path) -> dict[str, bytes]:
    storage = LocalStorage(folder)
    ours = ("mirror.json", "holds/")
    paths = [path for path in storage.find("") if not path.startswith(ours)]
    return {path: storage.read(path, 1 << 20) for path in paths}


@MOMENTS
def test_a_killed_gc_lets_others_publish_and_is_continued(
    tmp_path: Path, moments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "registry"
    team = registry(folder)
    publish(team, tmp_path / "files", "1.0.0")
    monkeypatch.setattr(holding, "REMOVAL", -1e9)  # the killed gc was killed long ago
    pool = contents(tmp_path / "files", *(f"content {number}" for number in range(5)))

    def seed() -> None:
        for digest, path in pool.items():
            place = folder / "blobs/sha256" / digest.removeprefix("sha256:")
            if not place.exists():
                place.write_bytes(path.read_bytes())

    def act() -> None:
        collect(at(folder), workers=2)

    seed()
    kill = Killer(act)
    for turn in kill.turns(moments):
        seed()
        kill(act)
        digest = random.choice(list(pool))
        files = {digest: pool[digest]}
        publish_entry(at(folder), entry(f"2.0.{turn}", files), files)
        if turn % 25 == 0:
            valid(folder)
        if len(at(folder).listing("refunds").versions) > 4:  # so that there are orphans again
            for path in (*folder.glob("adapters/refunds/versions/2.*"), *folder.glob("journal/*")):
                path.unlink()
    collect(at(folder), grace=-1, workers=2)
    left = {path.rpartition("/")[2] for path in LocalStorage(folder).find("blobs")}
    kept = {
        file.sha256.removeprefix("sha256:")
        for version in at(folder).listing("refunds").versions
        for file in at(folder).entry("refunds", str(version)).entry.files
    }
    assert left == kept
    assert all(path.endswith((".json", "closed")) for path in LocalStorage(folder).find("gc"))
    valid(folder)
