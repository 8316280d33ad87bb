"""Storages that list late, and clocks that are wrong.

A registry asks for a storage that lists what was created. Where one does not, answers may be old,
but nothing is lost, and nothing that was never published or promoted is ever selected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, IntegrityError, SourceError
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue import promote as promoting
from adapterdock.registry.catalogue.catalogue import Catalogue, Seen, open_catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.promote import demote, history, mark, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.records import journal
from adapterdock.registry.records.journal import head
from support.memory_storage import LateListing, MemoryStorage
from support.published import contents, entry, publish

NAME = "refunds"


def late(lag: int = 30, seed: int = 0) -> tuple[LateListing, Catalogue]:
    storage = LateListing(lag, seed)
    init_registry(storage)
    return storage, open_catalogue(storage)


def selected(team: Catalogue, text: str, seen: Seen | None = None) -> str:
    selector = parse_selector(text)
    assert selector is not None
    return team.resolve(NAME, selector, seen).entry.version


def test_an_exact_version_is_found_at_once(tmp_path: Path) -> None:
    _, team = late()
    for number in range(5):
        publish(team, tmp_path / "files", f"1.0.{number}")
        assert selected(team, f"1.0.{number}") == f"1.0.{number}"
        again = publish(team, tmp_path / "files", f"1.0.{number}")
        assert not again.new


@pytest.mark.parametrize("seed", range(10))
def test_a_range_selects_a_published_version_and_later_the_newest(
    tmp_path: Path, seed: int
) -> None:
    storage, team = late(seed=seed)
    for number in range(5):
        publish(team, tmp_path / "files", f"1.0.{number}")
        try:
            found = selected(team, "^1")
        except SourceError as error:
            assert error.code == "AD861"
        else:
            assert found in {f"1.0.{n}" for n in range(number + 1)}
    storage.settle()
    assert selected(team, "^1") == "1.0.4"


@pytest.mark.parametrize("seed", range(20))
def test_changes_lose_nothing_and_decide_by_what_is_there(tmp_path: Path, seed: int) -> None:
    """Promotions, demotions and marks, each of which must have its effect, whatever was listed."""
    storage, team = late(seed=seed)
    random = Random(seed)
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)
    now: str | None = None
    yanked = False
    for _ in range(12):
        version = random.choice(("1.0.0", "1.1.0", None))
        act: Callable[[], object] = (
            (lambda: demote(team, NAME, "prod"))
            if version is None
            else (lambda version=version: promote(team, NAME, version, "prod"))
        )
        try:
            done = act()
        except IntegrityError as error:  # a listing with a gap: refused, and nothing was done
            assert error.code == "AD863"
            storage.settle()
            done = act()
        assert (done is not None) == (version != now)
        now = version
        wanted = random.random() < 0.5
        try:
            marked = mark(team, NAME, "1.0.0", "yank" if wanted else "unyank")
        except IntegrityError:
            storage.settle()
            marked = mark(team, NAME, "1.0.0", "yank" if wanted else "unyank")
        assert (marked is not None) == (wanted != yanked)
        yanked = wanted
    storage.settle()
    rows = history(team, NAME, "prod")
    assert [row.serial for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[-1].version if rows else None) == now
    found = team.mark(team.listing(NAME), "1.0.0")
    assert (found is not None and found.yanked) == yanked
    last = head(storage)
    assert last is not None
    assert last.number == len(storage.find("journal"))


@pytest.mark.parametrize("seed", range(10))
def test_what_was_seen_before_is_never_followed_by_something_older(
    tmp_path: Path, seed: int
) -> None:
    storage, team = late(seed=seed)
    for number in range(6):
        publish(team, tmp_path / "files", f"1.0.{number}")
    selector = parse_selector("prod")
    assert selector is not None
    promoted, seen = -1, None
    for number in range(6):
        try:
            promote(team, NAME, f"1.0.{number}", "prod")
        except IntegrityError:
            storage.settle()
            promote(team, NAME, f"1.0.{number}", "prod")
        promoted = number
        try:
            found = team.resolve(NAME, selector, seen)
        except AdapterdockError as error:
            assert error.code in ("AD861", "AD863")  # not there yet, or older than what was seen
        else:
            assert found.alias is not None
            assert found.entry.version == f"1.0.{found.alias.serial - 1}"
            assert seen is None or found.alias.serial >= seen.serial
            assert found.alias.serial - 1 <= promoted
            seen = found.alias
    storage.settle()
    assert selected(team, "prod", seen) == "1.0.5"


def test_gc_removes_nothing_where_it_cannot_see_what_it_created(tmp_path: Path) -> None:
    storage, team = late(lag=10_000, seed=3)
    files = contents(tmp_path / "files", "one")
    publish_entry(team, entry("1.0.0", files), files)
    storage.create("blobs/sha256/" + "0" * 64, b"nobody needs this")
    storage._from = {path: 0 for path in storage.files if path.startswith("blobs/")}
    before = set(storage.find("blobs"))
    with pytest.raises(SourceError) as caught:
        collect(team, grace=0)
    assert caught.value.code == "AD873"
    assert "nothing is removed" in str(caught.value)
    assert set(storage.find("blobs")) == before


@pytest.mark.parametrize("lag", [1, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_a_gc_in_the_middle_of_late_publishing_removes_no_content_of_an_entry(
    tmp_path: Path, lag: int, seed: int
) -> None:
    storage, team = late(lag, seed)
    for number in range(6):
        files = contents(tmp_path / "files", f"weights {number}")
        publish_entry(team, entry(f"1.0.{number}", files), files)
        if number % 2:
            try:
                collect(team)
            except SourceError as error:
                assert error.code == "AD873"
    storage.settle()
    for number in range(6):
        (file,) = team.entry(NAME, f"1.0.{number}").entry.files
        assert f"blobs/sha256/{file.sha256.removeprefix('sha256:')}" in storage.files


@pytest.mark.parametrize("year", ["1970", "2199"])
def test_a_wrong_clock_changes_no_order_and_no_decision(
    tmp_path: Path, year: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = MemoryStorage()
    init_registry(storage)
    team = open_catalogue(storage)
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)
    promote(team, NAME, "1.0.0", "prod", by="ada")
    for module in (journal, promoting):
        monkeypatch.setattr(module, "now", lambda: f"{year}-01-01T00:00:00Z")
    promote(team, NAME, "1.1.0", "prod", by="a wrong clock")
    mark(team, NAME, "1.0.0", "yank")
    again = publish(team, tmp_path / "files", "1.0.0", created=f"{year}-01-01T00:00:00Z")
    assert not again.new
    monkeypatch.undo()
    promote(team, NAME, "1.0.0", "prod", by="ada")
    mark(team, NAME, "1.0.0", "unyank")
    assert [row.by for row in history(team, NAME, "prod")] == ["ada", "a wrong clock", "ada"]
    assert selected(team, "prod") == "1.0.0"
    found = team.mark(team.listing(NAME), "1.0.0")
    assert found is not None
    assert not found.yanked


@pytest.mark.parametrize("skew", [-1e9, 0.0, 1e9])
def test_gc_compares_ages_by_the_storage_clock_only(
    tmp_path: Path, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage whose clock is decades off, beside a local one: a hold that is new stays one."""
    storage = MemoryStorage()
    monkeypatch.setattr(storage, "times", lambda folder: dict.fromkeys(storage.find(folder), skew))
    init_registry(storage)
    team = open_catalogue(storage)
    files = contents(tmp_path / "files", "one", "two")
    held, free = files
    storage.create(f"blobs/sha256/{held.removeprefix('sha256:')}", b"one")
    storage.create(f"blobs/sha256/{free.removeprefix('sha256:')}", b"two")
    storage.create("holds/" + "a" * 32 + ".json", f'{{"digests":["{held}"]}}'.encode())
    done = collect(team)
    assert (done.removed, done.kept) == ((free,), (held,))
