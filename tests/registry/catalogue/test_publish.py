"""Publishing: once, completely or not at all."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    PolicyError,
    SourceError,
    StoreError,
    UsageError,
)
from adapterdock.manifests.findings.store import CACHE_IO
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.records.journal import head
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import Counted, contents, entry, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    return registry(tmp_path / "registry")


def resolve(catalogue: Catalogue, text: str, name: str = "refunds") -> str:
    selector = parse_selector(text)
    assert selector is not None
    return catalogue.resolve(name, selector).entry.version


def test_a_registry_is_created_once_and_keeps_its_id(tmp_path: Path) -> None:
    team = registry(tmp_path, "Team")
    assert team.title == "Team"
    assert (tmp_path / ".gitattributes").read_text() == "* -text\n"
    with pytest.raises(StoreError) as caught:
        init_registry(LocalStorage(tmp_path), local=True)
    assert caught.value.code == "AD864"
    assert open_catalogue(LocalStorage(tmp_path)).id == team.id
    assert open_catalogue(LocalStorage(tmp_path), team.id).id == team.id
    with pytest.raises(IntegrityError):
        open_catalogue(LocalStorage(tmp_path), "0" * 32)


def test_a_checkout_in_which_git_changes_line_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".gitattributes").write_text("*.json text\n")
    with pytest.raises(StoreError):
        init_registry(LocalStorage(tmp_path), local=True)
    assert not (tmp_path / "registry.json").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format":2,"id":"aaaaaaaaaaaaaaaaaaaa"}', '{"format":1,"id":"../x"}']
)
def test_what_is_not_a_registry_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_catalogue(LocalStorage(tmp_path))
    assert caught.value.code == "AD860"
    (tmp_path / "registry.json").write_text(text)
    with pytest.raises(SourceError) as caught:
        open_catalogue(LocalStorage(tmp_path))
    assert caught.value.code == "AD860"


def test_what_is_published_resolves_and_is_in_the_journal(team: Catalogue, tmp_path: Path) -> None:
    done = publish(team, tmp_path / "files", "2.1.0")
    assert done.new
    assert len(done.uploaded) == 1
    for text in ("2.1.0", "^2.0", done.resolved.digest):
        assert resolve(team, text) == "2.1.0"
    line = head(team.storage)
    assert line is not None
    assert line.number == 1
    assert line.data["entry"] == done.resolved.digest


@pytest.mark.parametrize("broken", [True, False])
def test_a_version_that_the_journal_cannot_name_is_published_with_a_warning(
    team: Catalogue, tmp_path: Path, broken: bool
) -> None:
    assert publish(team, tmp_path / "files", "1.0.0").problems == ()
    lines = tmp_path / "registry" / "journal"
    if broken:
        (lines / "00000001.json").write_text("damaged")
    else:  # the storage is gone after the entry was written

        class Gone(Counted):
            def create(self, path: str, content: bytes | Path) -> None:
                if path.startswith("journal/"):
                    raise StoreError(CACHE_IO.finding("gone"))
                super().create(path, content)

        team = open_catalogue(Gone(team.storage))
    done = publish(team, tmp_path / "files", "1.1.0")
    (problem,) = done.problems
    assert (done.new, problem.code, problem.severity.value) == (True, "AD849", "warning")
    assert problem.message.startswith("refunds@1.1.0 is published, but the journal")
    assert "`adapterdock registry verify`" in (problem.hint or "")
    assert ("Restore" in (problem.hint or "")) is broken
    assert resolve(open_catalogue(LocalStorage(tmp_path / "registry")), "1.1.0") == "1.1.0"


def test_the_same_content_again_succeeds_and_other_content_is_refused(
    team: Catalogue, tmp_path: Path
) -> None:
    publish(team, tmp_path / "files", "2.1.0")
    again = publish(team, tmp_path / "files", "2.1.0", created="2027-01-01T00:00:00Z")
    assert not again.new
    assert not again.uploaded
    assert again.resolved.entry.created == "2026-11-30T06:00:00Z"
    with pytest.raises(IntegrityError) as caught:
        publish(team, tmp_path / "files", "2.1.0", licence="MIT")
    assert caught.value.code == "AD864"
    assert "licence" in str(caught.value)


def test_wherever_a_publisher_is_killed_the_version_is_absent_or_complete(tmp_path: Path) -> None:
    files = contents(tmp_path / "files", "one", "two")
    for moment in range(100):
        folder = tmp_path / f"registry{moment}"
        registry(folder)
        counted = Counted(LocalStorage(folder))
        killed = open_catalogue(counted)
        counted.break_off = moment
        try:
            publish_entry(killed, entry("1.0.0", files), files)
            finished = True
        except KeyboardInterrupt:
            finished = False
        team = open_catalogue(LocalStorage(folder))
        before = set(team.storage.find("blobs"))
        if team.listing("refunds").versions:
            assert resolve(team, "1.0.0") == "1.0.0"
            assert len(before) == 2
        done = publish_entry(team, entry("1.0.0", files), files)
        assert len(done.uploaded) == 2 - len(before)
        assert resolve(team, "1.0.0") == "1.0.0"
        if finished:
            break
    else:
        pytest.fail("it was never finished")
    assert moment > 6


def test_of_many_publishers_of_one_version_one_wins(team: Catalogue, tmp_path: Path) -> None:
    results: list[str] = []

    def run(number: int) -> None:
        try:
            done = publish(team, tmp_path / f"files{number}", "1.0.0", description=f"{number}")
            results.append("won" if done.new else "again")
        except AdapterdockError as error:
            results.append(error.code)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["AD864"] * 7 + ["won"]


def test_publishers_of_many_versions_leave_a_journal_without_gaps(
    team: Catalogue, tmp_path: Path
) -> None:
    def run(number: int) -> None:
        for patch in range(4):
            publish(team, tmp_path / f"files{number}", f"{number}.0.{patch}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(team.storage.find("journal")) == 24
    last = head(team.storage)
    assert last is not None
    assert last.number == 24
    lines = [json.loads(team.storage.read(path, 1000)) for path in team.storage.find("journal")]
    assert len({line["version"] for line in lines}) == 24


def test_a_content_that_vanished_before_the_entry_was_there_is_uploaded_again(
    team: Catalogue, tmp_path: Path
) -> None:
    files = contents(tmp_path / "files", "one")

    class Collected(Counted):
        def create(self, path: str, content: bytes | Path) -> None:
            super().create(path, content)
            if path.startswith("adapters/"):
                for blob in self.inner.find("blobs"):
                    self.inner.remove(blob)

    publish_entry(open_catalogue(Collected(team.storage)), entry("1.0.0", files), files)
    assert len(team.storage.find("blobs")) == 1


def test_a_file_that_changed_is_not_published(team: Catalogue, tmp_path: Path) -> None:
    files = contents(tmp_path / "files", "one")
    (tmp_path / "files/one").write_text("two")
    with pytest.raises(IntegrityError):
        publish_entry(team, entry("1.0.0", files), files)
    assert not team.storage.find("adapters")
    assert not team.storage.find("blobs")


def test_a_new_name_that_is_nearly_another_needs_consent(team: Catalogue, tmp_path: Path) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    with pytest.raises(UsageError) as caught:
        publish(team, tmp_path / "files", "1.0.0", name="refund")
    assert caught.value.code == "AD865"
    files = contents(tmp_path / "files", "one")
    publish_entry(team, entry("1.0.0", files, name="refund"), files, new_name=True)
    publish(team, tmp_path / "files", "1.1.0", name="refund")
    publish(team, tmp_path / "files", "1.0.0", name="billing")


def test_a_mirror_refuses_to_publish(team: Catalogue, tmp_path: Path) -> None:
    team.storage.create("mirror.json", b"{}")
    with pytest.raises(PolicyError) as caught:
        publish(team, tmp_path / "files", "1.0.0")
    assert caught.value.code == "AD867"


def test_an_exact_version_costs_one_read_and_a_range_one_listing_more(
    team: Catalogue, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
        publish(team, tmp_path / "files", version)
    counted = Counted(team.storage)
    catalogue = open_catalogue(counted)
    counted.calls.clear()
    assert resolve(catalogue, "1.0.0") == "1.0.0"
    assert [what for what, _ in counted.calls] == ["read"]
    counted.calls.clear()
    assert resolve(catalogue, ">=1") == "1.1.0"
    assert [what for what, _ in counted.calls] == ["find", "read"]


@pytest.mark.parametrize("text", ["3.0.0", "^3", "prod", "sha256:" + "0" * 64])
def test_what_is_not_published_does_not_resolve(team: Catalogue, tmp_path: Path, text: str) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    with pytest.raises(SourceError) as caught:
        resolve(team, text)
    assert caught.value.code == "AD861"


def test_an_entry_under_another_version_is_refused(team: Catalogue, tmp_path: Path) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    folder = tmp_path / "registry/adapters/refunds/versions"
    (folder / "1.0.0.json").rename(folder / "1.0.1.json")
    with pytest.raises(IntegrityError) as caught:
        resolve(team, "1.0.1")
    assert caught.value.code == "AD862"


def test_what_is_not_published_is_said_with_what_is(team: Catalogue, tmp_path: Path) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    for text in ("3.0.0", "^3", "prod"):
        with pytest.raises(SourceError) as caught:
            resolve(team, text)
        assert caught.value.findings[0].found == "1.0.0; aliases: none"
    with pytest.raises(SourceError) as caught:
        team.entry("refund", "1.0.0")
    assert "adapterdock search" in str(caught.value.findings[0].hint)
