"""Sixteen processes use one registry: nothing is lost, nothing is there twice, no number is left
out."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, SourceError
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.promote import history, mark, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.storages.layout import blob_file
from adapterdock.registry.storages.local_storage import LocalStorage
from support.processes import ended, started
from support.published import contents, entry, publish, registry

PROCESSES = 16
NAMES = ("refunds", "team/tone")


class Worker:
    """Does random things to a registry, and notes what it did."""

    def __init__(self, folder: Path, pool: dict[str, Path], number: int, notes: Path) -> None:
        self.team: Catalogue = open_catalogue(LocalStorage(folder))
        self.pool, self.number, self.turn = pool, number, 0
        self.notes = notes.open("w")

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        acts = (self.publish, self.publish, self.promote, self.promote, self.yank, self.resolve)
        while time.monotonic() < end:
            self.turn += 1
            if self.number < 2:
                self.collect()
            elif self.number == 2 or random.random() < 0.2:
                self.leave_content()
            else:
                random.choice(acts)()
        self.notes.close()

    def note(self, what: str, **more: Any) -> None:
        self.notes.write(json.dumps({"what": what, **more}) + "\n")
        self.notes.flush()

    def publish(self) -> None:
        """A version of its own, or one that others publish too."""
        alone = random.random() < 0.7
        version = f"1.{self.number}.{self.turn}" if alone else f"2.0.{random.randrange(40)}"
        files = dict(random.sample(list(self.pool.items()), 2))
        name = random.choice(NAMES)
        made = entry(version, files, name=name, description=f"{self.number} {self.turn}")
        try:
            done = publish_entry(self.team, made, files)
        except IntegrityError as error:
            assert error.code == "AD864"
            assert not alone
        else:
            assert done.new
            self.note("publish", name=name, version=version, entry=done.resolved.digest)

    def promote(self) -> None:
        name = random.choice(NAMES)
        version = str(random.choice(self.team.listing(name).versions))
        done = promote(self.team, name, version, "prod", by=f"{self.number} {self.turn}")
        if done is not None:
            self.note("promote", name=name, serial=done.serial, version=version, by=done.by)

    def yank(self) -> None:
        name = random.choice(NAMES)
        by = f"{self.number} {self.turn}"
        action = random.choice(("yank", "unyank", "deprecate"))
        version = f"0.0.{random.randrange(3)}"
        if mark(self.team, name, version, action, by=by) is not None:
            self.note("mark", name=name, version=version, by=by)

    def resolve(self) -> None:
        name = random.choice(NAMES)
        selector = parse_selector(random.choice(("prod", "^1", "2.0.7", ">=0")))
        assert selector is not None
        with suppress(SourceError):
            for file in self.team.resolve(name, selector).entry.files:
                raw = self.team.storage.read(blob_file(file.sha256), 1 << 20)
                assert raw == self.pool[file.sha256].read_bytes()

    def leave_content(self) -> None:
        """Like a publisher that is killed before its entry."""
        digest, path = random.choice(list(self.pool.items()))
        with suppress(FileExistsError):
            self.team.storage.create(blob_file(digest), path)

    def collect(self) -> None:
        done = collect(self.team, workers=2)
        self.note("gc", removed=len(done.removed), kept=len(done.kept))
        time.sleep(0.02)


@pytest.mark.parametrize(
    "seconds", [pytest.param(60, marks=pytest.mark.slow), 4], ids=["a minute", "seconds"]
)
def test_sixteen_processes_lose_nothing_and_write_nothing_twice(
    tmp_path: Path, seconds: float
) -> None:
    folder = tmp_path / "registry"
    team = registry(folder)
    pool = contents(tmp_path / "pool", *(f"content {number}" for number in range(60)))
    for name in NAMES:
        for number in range(3):
            publish(team, tmp_path / "pool", f"0.0.{number}", name=name)
    pool = contents(tmp_path / "pool", *(path.name for path in (tmp_path / "pool").iterdir()))
    errors, notes = tmp_path / "errors", [tmp_path / f"notes{n}" for n in range(PROCESSES)]

    def work(number: int) -> None:
        Worker(folder, pool, number, notes[number]).run(seconds)

    children = [started(lambda number=number: work(number), errors) for number in range(PROCESSES)]
    statuses = [ended(child) for child in children]
    assert statuses == [0] * PROCESSES, errors.read_text()
    rows = [json.loads(line) for path in notes for line in path.read_text().splitlines()]
    _check(folder, rows)


def _check(folder: Path, rows: list[dict[str, Any]]) -> None:
    team = open_catalogue(LocalStorage(folder))
    found = verify_registry(team, patience=0, workers=2)
    assert not found.findings
    assert not found.added
    published = [(row["name"], row["version"]) for row in rows if row["what"] == "publish"]
    assert len(set(published)) == len(published)
    versions = {(name, str(version)) for name in NAMES for version in team.listing(name).versions}
    assert versions == {*published, *((name, f"0.0.{n}") for name in NAMES for n in range(3))}
    for row in rows:
        if row["what"] == "publish":
            assert team.entry(row["name"], row["version"]).digest == row["entry"]
    for name in NAMES:
        values = history(team, name, "prod")
        mine = [row for row in rows if row["what"] == "promote" and row["name"] == name]
        assert sorted((row["serial"], row["version"], row["by"]) for row in mine) == [
            (value.serial, value.version, value.by) for value in values
        ]
    marks = [row for row in rows if row["what"] == "mark"]
    assert found.counts["marks"] == len(marks)
    assert found.counts["journal"] == len(versions) + found.counts["alias"] + len(marks)
    assert not team.storage.find("holds")
    collect(team, workers=2)
    assert verify_registry(team, patience=0, workers=2).findings == ()
    needed = {f.sha256 for name, v in versions for f in team.entry(name, v).entry.files}
    assert set(team.storage.find("blobs")) == {blob_file(digest) for digest in needed}
