"""Registries on storages that list nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, SourceError
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, Resolved, Seen, open_catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.records.series import Value
from adapterdock.registry.records.unlisted import paths_of, probed
from adapterdock.registry.storages.local_storage import LocalStorage
from hypothesis import given
from hypothesis import strategies as some
from support.published import publish, registry

FOLDER = "adapters/refunds/aliases/prod"


class Unlisted(LocalStorage):
    """A folder, as a web server shows it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []

    @property
    def lists(self) -> bool:
        return False

    def read(self, path: str, limit: int) -> bytes:
        self.asked.append(path)
        return super().read(path, limit)

    def find(self, folder: str) -> Mapping[str, int]:
        raise AssertionError(f"{folder} was listed")


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        publish(made, tmp_path / "files", version)
    for version in ("1.0.0", "1.1.0", "1.0.0"):
        promote(made, "refunds", version, "prod")
    return made


@pytest.fixture
def site(team: Catalogue, tmp_path: Path) -> Unlisted:
    return Unlisted(tmp_path / "registry")


def resolve(site: Unlisted, text: str, seen: Seen | None = None) -> Resolved:
    selector = parse_selector(text)
    assert selector is not None
    return open_catalogue(site).resolve("refunds", selector, seen)


@pytest.mark.parametrize("selector", ["1.1.0", "^1.0", ">=1", "prod"])
def test_it_selects_what_a_listing_selects(team: Catalogue, site: Unlisted, selector: str) -> None:
    wanted = parse_selector(selector)
    assert wanted is not None
    listed = team.resolve("refunds", wanted)
    assert resolve(site, selector) == listed
    assert resolve(site, listed.digest).digest == listed.digest


def test_its_listing_has_versions_aliases_and_marks(team: Catalogue, site: Unlisted) -> None:
    mark(team, "refunds", "2.0.0", "yank")
    mark(team, "refunds", "2.0.0", "deprecate")
    listing = open_catalogue(site).listing("refunds")
    expected = team.listing("refunds")
    assert listing.versions == expected.versions
    assert listing.aliases == expected.aliases
    assert listing.alias_numbers("prod") == [1, 2, 3]
    assert listing.mark_numbers("2.0.0") == [1, 2]
    assert open_catalogue(site).listing("other").versions == []


def test_a_line_of_the_journal_is_read_once(team: Catalogue, site: Unlisted) -> None:
    opened = open_catalogue(site)
    opened.listing("refunds")
    site.asked.clear()
    opened.listing("other")
    assert site.asked == ["journal/00000006.json", "journal/00000007.json"]


def test_an_exact_version_that_is_not_in_the_journal_is_found(
    team: Catalogue, site: Unlisted, tmp_path: Path
) -> None:
    publish(team, tmp_path / "files", "3.0.0")
    (tmp_path / "registry/journal/00000007.json").unlink()
    assert resolve(site, "3.0.0").entry.version == "3.0.0"
    assert resolve(site, ">=1").entry.version == "2.0.0"


def test_a_value_that_a_lock_saw_and_that_is_gone_is_noticed(
    team: Catalogue, site: Unlisted, tmp_path: Path
) -> None:
    seen = resolve(site, "prod").alias
    assert seen is not None
    assert resolve(site, "prod", seen).alias == seen
    (tmp_path / f"registry/{FOLDER}/00000003.json").unlink()
    with pytest.raises(IntegrityError, match="went back"):
        resolve(site, "prod", seen)
    assert resolve(site, "prod").entry.version == "1.1.0"


def test_an_alias_that_does_not_exist_is_not_published(team: Catalogue, site: Unlisted) -> None:
    with pytest.raises(SourceError) as caught:
        resolve(site, "stage")
    assert caught.value.code == "AD861"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("known", [0, 1, 4])
def test_the_last_file_of_a_series_is_found(tmp_path: Path, count: int, known: int) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        (folder / f"{number:08d}.json").write_text("{}")
    known = min(known, count)
    site = Unlisted(tmp_path)
    assert len(probed(site, FOLDER, known)) == count
    assert len(site.asked) <= 2 * max(1, count - known).bit_length() + 1


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=9),
    lambda inner: some.lists(inner, max_size=2),
    max_leaves=3,
)
KEYS = some.sampled_from(["name", "what", "version", "alias", "serial"])
KNOWN = some.sampled_from(["refunds", "publish", "promote", "yank", "1.0.0", "../x", 10**9, -1])


@given(some.lists(some.dictionaries(KEYS, VALUES | KNOWN), max_size=6))
def test_any_line_of_a_journal_is_read_or_ignored(lines: list[dict[str, Any]]) -> None:
    values = [
        Value(number, json.dumps({"name": "refunds", **line}).encode())
        for number, line in enumerate(lines, 1)
    ]
    assert len(list(paths_of("refunds", values))) <= len(values) * 2000
