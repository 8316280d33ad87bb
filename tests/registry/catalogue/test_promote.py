"""Aliases and marks: histories that only grow."""

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
    UsageError,
)
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, Resolved, Seen, open_catalogue
from adapterdock.registry.catalogue.promote import (
    demote,
    history,
    mark,
    promote,
)
from adapterdock.registry.records.journal import head
from adapterdock.registry.records.metrics import parse_requirement
from support.published import Counted, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    publish(made, tmp_path / "files", "1.0.0", metrics={"accuracy": 0.87})
    publish(made, tmp_path / "files", "1.1.0", metrics={"accuracy": 0.91})
    return made


def resolve(catalogue: Catalogue, text: str, seen: Seen | None = None) -> Resolved:
    selector = parse_selector(text)
    assert selector is not None
    return catalogue.resolve("refunds", selector, seen)


def test_an_alias_selects_what_it_was_promoted_to_last(team: Catalogue) -> None:
    promote(team, "refunds", "1.0.0", "prod", by="ada")
    moved = promote(team, "refunds", "1.1.0", "prod", by="bo", why="better")
    assert moved is not None
    assert (moved.serial, moved.before) == (2, "1.0.0")
    found = resolve(team, "prod")
    assert found.entry.version == "1.1.0"
    assert found.alias is not None
    assert found.alias.serial == 2
    assert [(one.version, one.by, one.before) for one in history(team, "refunds", "prod")] == [
        ("1.0.0", "ada", None),
        ("1.1.0", "bo", "1.0.0"),
    ]
    assert promote(team, "refunds", "1.1.0", "prod") is None
    last = head(team.storage)
    assert last is not None
    assert last.data["what"] == "promote"
    assert last.number == 4


def test_an_alias_that_was_demoted_selects_nothing(team: Catalogue) -> None:
    promote(team, "refunds", "1.0.0", "prod")
    assert demote(team, "refunds", "prod") is not None
    assert demote(team, "refunds", "prod") is None
    assert demote(team, "refunds", "never") is None
    with pytest.raises(SourceError) as caught:
        resolve(team, "prod")
    assert caught.value.code == "AD861"
    assert "selects nothing" in caught.value.findings[0].message
    assert len(history(team, "refunds", "prod")) == 2
    promote(team, "refunds", "1.0.0", "prod")
    assert resolve(team, "prod").entry.version == "1.0.0"


def test_only_versions_that_exist_and_meet_the_requirements_are_promoted(
    team: Catalogue,
) -> None:
    require = [parse_requirement("accuracy >= 0.9")]
    with pytest.raises(PolicyError) as caught:
        promote(team, "refunds", "1.0.0", "prod", require=require)
    assert caught.value.code == "AD868"
    assert "0.87" in str(caught.value)
    with pytest.raises(PolicyError):
        promote(team, "refunds", "1.1.0", "prod", require=[parse_requirement("f1>0")])
    with pytest.raises(SourceError):
        promote(team, "refunds", "9.9.9", "prod")
    assert not history(team, "refunds", "prod")
    dry = promote(team, "refunds", "1.1.0", "prod", require=require, dry_run=True)
    assert dry is not None
    assert not history(team, "refunds", "prod")
    assert promote(team, "refunds", "1.1.0", "prod", require=require) is not None


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy>=", "a>=nan", "a>=x", ">=1", "a>>1"])
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_requirement(text)


@pytest.mark.parametrize("alias", ["v1", "x", "1.0.0", "Prod", "sha256", "a/b", ""])
def test_an_alias_that_looks_like_something_else_is_refused(team: Catalogue, alias: str) -> None:
    with pytest.raises(UsageError):
        promote(team, "refunds", "1.0.0", alias)


def test_an_alias_costs_one_listing_and_two_reads(team: Catalogue) -> None:
    for version in ("1.0.0", "1.1.0", "1.0.0"):
        promote(team, "refunds", version, "prod")
    counted = Counted(team.storage)
    catalogue = open_catalogue(counted)
    counted.calls.clear()
    resolve(catalogue, "prod")
    assert [what for what, _ in counted.calls] == ["find", "read", "read"]


def test_promotions_at_once_are_all_in_a_history_without_gaps(team: Catalogue) -> None:
    def run(number: int) -> None:
        for turn in range(4):
            promote(team, "refunds", f"1.{(number + turn) % 2}.0", "prod", by=f"{number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = history(team, "refunds", "prod")
    assert [row.serial for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.version != row.before for row in rows)
    lines = [json.loads(team.storage.read(path, 5000)) for path in team.storage.find("journal")]
    serials = [line["serial"] for line in lines if line["what"] == "promote"]
    assert sorted(serials) == [row.serial for row in rows]


def _path(team: Catalogue, serial: int) -> Path:
    return Path(team.storage.url) / f"adapters/refunds/aliases/prod/{serial:08}.json"


def test_an_alias_that_went_back_or_was_forked_is_refused(team: Catalogue) -> None:
    promote(team, "refunds", "1.0.0", "prod")
    promote(team, "refunds", "1.1.0", "prod")
    seen = resolve(team, "prod").alias
    assert seen is not None
    promote(team, "refunds", "1.0.0", "prod")
    assert resolve(team, "prod", seen).entry.version == "1.0.0"
    _path(team, 3).unlink()
    assert resolve(team, "prod", seen).entry.version == "1.1.0"
    _path(team, 2).unlink()
    with pytest.raises(IntegrityError, match="went back"):
        resolve(team, "prod", seen)
    promote(team, "refunds", "1.1.0", "prod", why="another history")
    with pytest.raises(IntegrityError, match="another value 2"):
        resolve(team, "prod", seen)


def test_a_gap_and_a_broken_chain_are_refused(team: Catalogue) -> None:
    for version in ("1.0.0", "1.1.0", "1.0.0"):
        promote(team, "refunds", version, "prod")
    first = resolve(team, "prod").alias
    changed = _path(team, 2).read_text().replace("1.1.0", "1.0.0")
    _path(team, 2).write_text(changed)
    for act in (
        lambda: history(team, "refunds", "prod"),
        lambda: promote(team, "refunds", "1.1.0", "prod"),
        lambda: resolve(team, "prod", Seen(2, "sha256:" + "0" * 64)),
    ):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.code == "AD863"
    _path(team, 2).unlink()
    with pytest.raises(IntegrityError) as caught:
        resolve(team, "prod", first)
    assert caught.value.code == "AD863"


def test_an_alias_whose_entry_was_changed_is_refused(team: Catalogue) -> None:
    promote(team, "refunds", "1.0.0", "prod")
    path = Path(team.storage.url) / "adapters/refunds/versions/1.0.0.json"
    path.write_text(path.read_text().replace("0.87", "0.97"))
    with pytest.raises(IntegrityError) as caught:
        resolve(team, "prod")
    assert caught.value.code == "AD862"


@pytest.mark.parametrize(
    "value",
    [
        {"version": 1, "entry": "x"},
        {"version": "../../x", "entry": "sha256:" + "0" * 64},
        {"version": "1.0.0"},
        {"version": "1.0.0", "entry": "sha256:0"},
    ],
)
def test_a_value_that_names_no_entry_is_refused(team: Catalogue, value: object) -> None:
    team.storage.create("adapters/refunds/aliases/prod/00000001.json", json.dumps(value).encode())
    with pytest.raises(IntegrityError):
        resolve(team, "prod")


def test_a_range_skips_what_is_yanked_and_an_exact_version_does_not(team: Catalogue) -> None:
    assert resolve(team, "^1").entry.version == "1.1.0"
    done = mark(team, "refunds", "1.1.0", "yank", by="ada", why="wrong tokenizer")
    assert done is not None
    assert mark(team, "refunds", "1.1.0", "yank") is None
    assert resolve(team, "^1").entry.version == "1.0.0"
    assert resolve(team, "1.1.0").entry.version == "1.1.0"
    mark(team, "refunds", "1.1.0", "deprecate", why="old")
    assert resolve(team, "^1").entry.version == "1.0.0"
    found = team.mark(team.listing("refunds"), "1.1.0")
    assert found is not None
    warning = found.warning("refunds", "1.1.0", Where())
    assert warning is not None
    assert "yanked and deprecated: old" in warning.message
    mark(team, "refunds", "1.1.0", "unyank")
    assert resolve(team, "^1").entry.version == "1.1.0"
    with pytest.raises(SourceError):
        mark(team, "refunds", "9.0.0", "yank")


def test_what_is_yanked_completely_does_not_resolve_by_a_range(team: Catalogue) -> None:
    for version in ("1.0.0", "1.1.0"):
        mark(team, "refunds", version, "yank")
    with pytest.raises(AdapterdockError) as caught:
        resolve(team, "^1")
    assert caught.value.code == "AD861"
