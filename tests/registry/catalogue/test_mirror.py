"""Mirrors: verified copies that can be continued, and that nobody publishes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    StoreError,
    UsageError,
)
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.mirror import Mirrored, mirror
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import Counted, contents, entry, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry", "Team")
    for version in ("1.0.0", "1.1.0"):
        publish(made, tmp_path / "files", version)
    publish(made, tmp_path / "files", "1.0.0", name="team/tone")
    promote(made, "refunds", "1.0.0", "prod")
    promote(made, "refunds", "1.1.0", "prod")
    mark(made, "refunds", "1.0.0", "yank", why="wrong")
    return made


def mirrored(team: Catalogue, folder: Path, **options: Any) -> Mirrored:
    return mirror(team, LocalStorage(folder), local=True, workers=2, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "mirror.json" and path.parent.name != "holds"
    }


def verified(folder: Path) -> list[str]:
    found = verify_registry(open_catalogue(LocalStorage(folder)), patience=0, workers=2)
    return [finding.code for finding in found.findings]


def test_a_mirror_has_every_byte_and_the_id(team: Catalogue, tmp_path: Path) -> None:
    done = mirrored(team, tmp_path / "mirror")
    assert files(tmp_path / "mirror") == files(tmp_path / "registry")
    assert open_catalogue(LocalStorage(tmp_path / "mirror"), team.id).title == "Team"
    origin = json.loads((tmp_path / "mirror/mirror.json").read_text())
    assert (origin["origin"], origin["id"]) == (team.storage.url, team.id)
    assert done.names == ("refunds", "team/tone")
    assert done.size > 0
    assert verified(tmp_path / "mirror") == []


def test_a_mirror_copies_only_what_is_new(team: Catalogue, tmp_path: Path) -> None:
    mirrored(team, tmp_path / "mirror")
    assert mirrored(team, tmp_path / "mirror").files == ()
    publish(team, tmp_path / "files", "1.2.0")
    promote(team, "refunds", "1.2.0", "prod")
    dry = mirrored(team, tmp_path / "mirror", dry_run=True)
    assert len(dry.files) == 5  # the content, the entry, the alias, two lines
    assert files(tmp_path / "mirror") != files(tmp_path / "registry")
    done = mirrored(team, tmp_path / "mirror")
    assert (done.files, done.size) == (dry.files, dry.size)
    assert files(tmp_path / "mirror") == files(tmp_path / "registry")


def test_a_dry_run_makes_nothing(team: Catalogue, tmp_path: Path) -> None:
    assert mirrored(team, tmp_path / "mirror", dry_run=True).files
    assert not (tmp_path / "mirror").exists()


def test_a_mirror_refuses_to_be_changed(team: Catalogue, tmp_path: Path) -> None:
    mirrored(team, tmp_path / "mirror")
    copy = open_catalogue(LocalStorage(tmp_path / "mirror"))
    for act in (
        lambda: publish(copy, tmp_path / "files", "3.0.0"),
        lambda: promote(copy, "refunds", "1.0.0", "prod"),
        lambda: mark(copy, "refunds", "1.1.0", "yank"),
    ):
        with pytest.raises(AdapterdockError) as caught:
            act()
        assert caught.value.code == "AD867"


def test_a_mirror_of_a_mirror_is_one_of_the_registry(team: Catalogue, tmp_path: Path) -> None:
    mirrored(team, tmp_path / "one")
    mirrored(open_catalogue(LocalStorage(tmp_path / "one")), tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "registry")
    publish(team, tmp_path / "files", "1.2.0")
    mirrored(team, tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "registry")


def test_only_some_names_are_copied_and_more_later(team: Catalogue, tmp_path: Path) -> None:
    done = mirrored(team, tmp_path / "mirror", only=["team/*"])
    assert done.names == ("team/tone",)
    assert verified(tmp_path / "mirror") == []
    copy = open_catalogue(LocalStorage(tmp_path / "mirror"))
    assert not copy.listing("refunds").paths
    mirrored(team, tmp_path / "mirror", only=["ref*", "x"])
    assert files(tmp_path / "mirror") == files(tmp_path / "registry")


@pytest.mark.parametrize("dry_run", [True, False])
def test_patterns_that_match_no_adapter_are_refused_and_nothing_is_written(
    team: Catalogue, tmp_path: Path, dry_run: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        mirrored(team, tmp_path / "mirror", only=["refunts*", "y"], dry_run=dry_run)
    (finding,) = caught.value.findings
    assert finding.message == "No adapter of this registry matches 'refunts*' or 'y'"
    assert (finding.code, finding.found) == ("AD861", "refunds, team/tone")
    assert finding.hint == "Did you mean 'refunds'?"
    assert not (tmp_path / "mirror").exists()


def test_a_registry_without_adapters_is_mirrored_whatever_the_pattern(tmp_path: Path) -> None:
    empty = registry(tmp_path / "empty")
    assert mirrored(empty, tmp_path / "mirror", only=["team/*"]).names == ()
    assert verified(tmp_path / "mirror") == []


@pytest.mark.parametrize("with_registry", [True, False])
def test_a_folder_that_is_no_mirror_is_refused(
    team: Catalogue, tmp_path: Path, with_registry: bool
) -> None:
    (tmp_path / "other").mkdir()
    if with_registry:
        registry(tmp_path / "other")
    else:
        (tmp_path / "other/notes.txt").write_text("mine")
    before = files(tmp_path / "other")
    with pytest.raises(StoreError) as caught:
        mirrored(team, tmp_path / "other")
    assert caught.value.code == "AD864"
    assert files(tmp_path / "other") == before
    with pytest.raises(StoreError):
        mirrored(team, tmp_path / "registry")


def test_a_mirror_of_another_registry_is_refused(team: Catalogue, tmp_path: Path) -> None:
    mirrored(registry(tmp_path / "other"), tmp_path / "mirror")
    with pytest.raises(IntegrityError) as caught:
        mirrored(team, tmp_path / "mirror")
    assert caught.value.code == "AD848"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("adapters/refunds/versions/1.0.0.json", None),
        ("adapters/refunds/aliases/prod/00000001.json", None),
        ("adapters/refunds/aliases/prod/00000003.json", "{}"),
        ("journal/00000002.json", None),
        ("registry.json", None),
    ],
)
def test_what_the_mirror_has_differently_is_refused_and_named(
    team: Catalogue, tmp_path: Path, path: str, text: str | None
) -> None:
    mirrored(team, tmp_path / "mirror")
    publish(team, tmp_path / "files", "1.2.0")
    place = tmp_path / "mirror" / path
    place.write_text(text if text is not None else place.read_text().replace(":", ": ", 1)[:-1])
    before = files(tmp_path / "mirror")
    with pytest.raises(IntegrityError) as caught:
        mirrored(team, tmp_path / "mirror")
    assert caught.value.code == "AD848"
    assert path in str(caught.value)
    assert files(tmp_path / "mirror") == before


@pytest.mark.parametrize(
    "pattern", ["blobs/sha256/*", "adapters/*/versions/*", "adapters/*/aliases/prod/*1.json"]
)
def test_what_is_damaged_in_the_origin_is_not_copied(
    team: Catalogue, tmp_path: Path, pattern: str
) -> None:
    path = min((tmp_path / "registry").glob(pattern))
    before = path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"sha256:1", b"sha256:7").replace(b"of 1", b"of 7"))
    if path.read_bytes() == before:  # an alias
        path.write_bytes(before.replace(b"1.0.0", b"1.0.1"))
    with pytest.raises(IntegrityError):
        mirrored(team, tmp_path / "mirror")
    assert not (tmp_path / "mirror" / path.relative_to(tmp_path / "registry")).exists()


def test_wherever_a_mirror_is_killed_it_is_valid_and_the_next_run_completes_it(
    team: Catalogue, tmp_path: Path
) -> None:
    for moment in range(200):
        folder = tmp_path / f"mirror{moment}"
        counted = Counted(LocalStorage(folder))
        counted.break_off = moment
        try:
            mirror(team, counted, workers=1)
            finished = True
        except KeyboardInterrupt:
            finished = False
        if (folder / "registry.json").exists():
            assert (folder / "mirror.json").exists()
            assert set(verified(folder)) <= {"AD849"}
            copy = open_catalogue(LocalStorage(folder))
            if "1.0.0" in map(str, copy.listing("refunds").versions):
                assert copy.mark(copy.listing("refunds"), "1.0.0")
            if copy.listing("refunds").aliases:
                selector = parse_selector("prod")
                assert selector is not None
                assert copy.resolve("refunds", selector).entry.files
        mirrored(team, folder)
        assert files(folder) == files(tmp_path / "registry")
        if finished:
            break
    else:
        pytest.fail("it was never finished")
    assert moment > 20


def test_what_is_published_while_it_is_listed_comes_whole_or_with_the_next_run(
    team: Catalogue, tmp_path: Path
) -> None:
    class Busy(LocalStorage):
        """Somebody publishes and promotes before each listing."""

        turn = 0

        def find(self, folder: str) -> Any:
            if folder in ("", "journal", "adapters"):
                self.turn += 1
                busy = open_catalogue(LocalStorage(tmp_path / "registry"))
                publish(busy, tmp_path / "files", f"2.{self.turn}.0")
                promote(busy, "refunds", f"2.{self.turn}.0", "prod")
            return super().find(folder)

    busy = Busy(tmp_path / "registry")
    mirrored(open_catalogue(busy), tmp_path / "mirror")
    assert busy.turn == 3
    assert set(verified(tmp_path / "mirror")) <= {"AD849"}
    mirrored(team, tmp_path / "mirror")
    assert verified(tmp_path / "mirror") == []


def test_a_content_that_vanished_from_the_mirror_is_copied_again(
    team: Catalogue, tmp_path: Path
) -> None:
    mirrored(team, tmp_path / "mirror")
    min((tmp_path / "mirror/blobs/sha256").iterdir()).unlink()
    assert len(mirrored(team, tmp_path / "mirror").files) == 1
    assert verified(tmp_path / "mirror") == []


def test_contents_that_several_entries_share_are_copied_once(tmp_path: Path) -> None:
    team = registry(tmp_path / "registry")
    shared = contents(tmp_path / "files", "shared")
    for version in ("1.0.0", "1.0.1"):
        publish_entry(team, entry(version, shared), shared)
    done = mirrored(team, tmp_path / "mirror")
    assert sum(path.startswith("blobs/") for path in done.files) == 1
