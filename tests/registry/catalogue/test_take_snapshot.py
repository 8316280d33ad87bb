"""Snapshots of a registry: what is in them, when they are written, and what ignores them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.catalogue import take_snapshot as module
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.recent import recent
from adapterdock.registry.catalogue.take_snapshot import (
    Known,
    known_names,
    newest_snapshot,
    take_snapshot,
)
from adapterdock.registry.records.journal import head, note
from adapterdock.registry.records.series import canonical
from adapterdock.registry.storages.layout import entry_file
from support.published import Counted, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    return registry(tmp_path / "registry")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


def folder_of(catalogue: Catalogue) -> Path:
    return Path(catalogue.storage.url)


def rows(known: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(row.name, row.version, row.marks) for row in known.rows]


def test_an_empty_registry_has_no_snapshot(team: Catalogue) -> None:
    assert take_snapshot(team) is None
    assert newest_snapshot(team) == Known()
    assert not (folder_of(team) / "snapshots").exists()


def test_what_only_a_newer_version_can_read_is_in_its_rows_once_it_can_be_read(
    team: Catalogue, files: Path
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(team, files, version)
    mark(team, "refunds", "1.1.0", "yank", why="wrong")
    path = folder_of(team) / entry_file("refunds", "1.1.0")
    raw = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(canonical({**json.loads(raw), "critical": ["sandbox"]}))
    damaged = folder_of(team) / entry_file("refunds", "1.2.0")
    damaged.chmod(0o644)
    damaged.write_bytes(b"{}")
    assert recent(team).unread == (("refunds", "1.1.0"),)
    taken = take_snapshot(team)
    assert taken is not None and taken.rows == 1
    again = take_snapshot(team)
    assert again is not None and not again.new
    known = newest_snapshot(team)
    assert (rows(known), known.unread) == ([("refunds", "1.0.0", ())], (("refunds", "1.1.0"),))
    path.write_bytes(raw)  # as a newer reader sees it
    known = newest_snapshot(team)
    assert known.unread == ()
    assert rows(known) == [("refunds", "1.0.0", ()), ("refunds", "1.1.0", ("yanked",))]


def test_a_snapshot_has_all_versions_and_their_marks(team: Catalogue, files: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(team, files, version)
    mark(team, "refunds", "1.0.0", "yank", why="wrong")
    promote(team, "refunds", "1.1.0", "prod")
    taken = take_snapshot(team)
    assert taken is not None
    assert (taken.path, taken.rows, taken.new) == ("snapshots/00000004.jsonl.gz", 2, True)
    known = newest_snapshot(team)
    assert rows(known) == [("refunds", "1.0.0", ("yanked",)), ("refunds", "1.1.0", ())]
    again = take_snapshot(team)
    assert again is not None and not again.new
    mark(team, "refunds", "1.0.0", "unyank")
    publish(team, files, "2.0.0")
    more = recent(team, known.number)
    assert [row.version for row in more.rows] == ["2.0.0"]
    assert more.marks == {("refunds", "1.0.0"): ()}
    take_snapshot(team)
    assert rows(newest_snapshot(team))[0] == ("refunds", "1.0.0", ())


class Unlisted(Counted):
    """A registry on a web server."""

    @property
    def lists(self) -> bool:
        return False

    def find(self, folder: str) -> Any:
        raise AssertionError(folder)


def test_a_web_server_which_lists_nothing_has_its_snapshot_found_by_the_journal(
    team: Catalogue, files: Path
) -> None:
    publish(team, files, "1.0.0")
    storage = Unlisted(team.storage)
    assert newest_snapshot(Catalogue(storage, team.id)) == Known()
    take_snapshot(team)
    assert rows(newest_snapshot(Catalogue(storage, team.id))) == [("refunds", "1.0.0", ())]
    publish(team, files, "1.1.0")
    storage.calls.clear()
    assert newest_snapshot(Catalogue(storage, team.id)).number == 1
    assert [row.version for row in recent(Catalogue(storage, team.id), 1).rows] == ["1.1.0"]


def test_what_the_journal_does_not_have_is_found_by_a_listing(
    team: Catalogue, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(team, files, "1.0.0")
    monkeypatch.setattr("adapterdock.registry.records.noted.note", _killed)  # before its line
    with pytest.raises(KeyboardInterrupt):
        publish(team, files, "1.1.0")
    with pytest.raises(KeyboardInterrupt):
        mark(team, "refunds", "1.0.0", "yank")
    taken = take_snapshot(team)
    assert taken is not None and taken.path == "snapshots/00000001.jsonl.gz"
    assert rows(newest_snapshot(team)) == [
        ("refunds", "1.0.0", ("yanked",)),
        ("refunds", "1.1.0", ()),
    ]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_snapshot_is_ignored_with_a_warning_and_a_later_one_takes_its_place(
    team: Catalogue, files: Path
) -> None:
    publish(team, files, "1.0.0")
    take_snapshot(team)
    publish(team, files, "1.1.0")
    second = take_snapshot(team)
    assert second is not None
    path = folder_of(team) / second.path
    path.write_bytes(path.read_bytes()[:-9])
    known = newest_snapshot(team)
    assert rows(known) == [("refunds", "1.0.0", ())]
    (problem,) = known.problems
    assert (problem.code, problem.severity.value) == ("AD845", "warning")
    third = take_snapshot(team)  # nothing is ever overwritten: under the next number
    assert third is not None and third.path == "snapshots/00000004.jsonl.gz"
    assert len(newest_snapshot(team).rows) == 2 and not newest_snapshot(team).problems


def test_a_snapshot_after_the_journals_end_is_not_used(team: Catalogue, files: Path) -> None:
    publish(team, files, "1.0.0")
    taken = take_snapshot(team)
    assert taken is not None
    late = folder_of(team) / "snapshots" / "00000009.jsonl.gz"
    late.write_bytes(module.encode_snapshot(team.id, 9, ()))
    assert newest_snapshot(team).number == 1
    (folder_of(team) / "snapshots" / "notes.txt").write_text("?")
    publish(team, files, "1.1.0")
    last = head(team.storage)
    assert last is not None and (last.number, last.data["snapshot"]) == (3, 1)


def test_publish_writes_a_snapshot_when_it_is_due(
    team: Catalogue, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY", 3)
    monkeypatch.setattr(module, "_TRY_AT", 1)
    for n in range(7):
        publish(team, files, f"1.0.{n}")
    names = sorted(p.name for p in (folder_of(team) / "snapshots").iterdir())
    assert names == ["00000003.jsonl.gz", "00000006.jsonl.gz"]
    assert len(newest_snapshot(team).rows) == 6
    last = head(team.storage)
    assert last is not None and last.data["snapshot"] == 6


def test_a_snapshot_that_fails_does_not_fail_the_publish(
    team: Catalogue, files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Known:
        raise RuntimeError("the storage is full")

    monkeypatch.setattr(module, "EVERY", 1)
    monkeypatch.setattr(module, "_TRY_AT", 1)
    monkeypatch.setattr(module, "encode_snapshot", broken)
    with caplog.at_level(logging.WARNING):
        assert publish(team, files, "1.0.0").new
    assert "the storage is full" in caplog.text


def test_a_new_name_is_compared_without_listing_the_registry_where_there_is_a_snapshot(
    team: Catalogue, files: Path
) -> None:
    publish(team, files, "1.0.0")
    assert known_names(team) is None
    take_snapshot(team)
    publish(team, files, "1.0.0", name="team/tone")
    storage = Counted(team.storage)
    counted = open_catalogue(storage)
    assert known_names(counted) == {"refunds", "team/tone"}
    for near in ("refund", "team/tones"):
        with pytest.raises(UsageError, match="is nearly"):
            publish(counted, files, "1.0.0", name=near)
    assert ("find", "adapters") not in storage.calls


def test_lines_that_name_other_places_are_ignored(team: Catalogue, files: Path) -> None:
    publish(team, files, "1.0.0")
    for name, version in (("../../etc", "1.0.0"), ("refunds", "../1.0.0"), (3, None)):
        note(team.storage, {"what": "publish", "name": name, "version": version})
        note(team.storage, {"what": "yank", "name": name, "version": version, "serial": "x"})
    note(team.storage, {"what": "publish", "name": "refunds", "version": "9.0.0"})
    found = recent(team)
    assert [row.version for row in found.rows] == ["1.0.0"] and found.marks == {}
    assert found.number == 8
