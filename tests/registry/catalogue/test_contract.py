"""What a registry promises, on every backend that one can be published to.

Local folders with and without hard links, S3, and (in `make test-registries`) Azure. What the
storages promise is in `test_storage.py`; here are the promises that are made of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    FitError,
    IntegrityError,
    PolicyError,
    SourceError,
    StoreError,
)
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, Resolved, Seen, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.catalogue.promote import demote, history, mark, promote
from adapterdock.registry.catalogue.publish import Published, publish_entry
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.lock import lock
from adapterdock.registry.publishing import publish as publish_folder
from adapterdock.registry.pull import pull
from adapterdock.registry.records.journal import head
from adapterdock.registry.records.series import file_of
from adapterdock.registry.storages.layout import alias_folder, blob_file, entry_file, marks_folder
from adapterdock.registry.store.store import Store
from support.places import AZURE, Place
from support.project import Project
from support.published import Counted, contents, entry, publish
from support.web import WebServer

NAME = "refunds"


@pytest.fixture
def team(place: Place) -> Catalogue:
    return place.init("The team's")


def resolve(team: Catalogue, text: str, name: str = NAME, seen: Seen | None = None) -> Resolved:
    selector = parse_selector(text)
    assert selector is not None
    return team.resolve(name, selector, seen)


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each returned or raised, called by a thread of its own."""
    found: list[object] = []
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        barrier.wait()
        try:
            found.append(act())
        except AdapterdockError as error:
            found.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def journal(place: Place) -> list[dict[str, object]]:
    """The journal's lines, without a gap from 1, each naming the one before."""
    files = {p: raw for p, raw in place.files().items() if p.startswith("journal/")}
    assert sorted(files) == [f"journal/{file_of(n)}" for n in range(1, len(files) + 1)]
    raws = [files[path] for path in sorted(files)]
    lines = [json.loads(raw) for raw in raws]
    assert [line["previous"] for line in lines] == [None, *map(sha256_bytes, raws[:-1])]
    return lines


# --- a registry -----------------------------------------------------------------------------------


def test_a_registry_is_created_once_and_keeps_its_id(place: Place) -> None:
    team = place.init("The team's")
    before = place.files()
    with pytest.raises(StoreError) as caught:
        init_registry(place.storage(), "Another")
    assert caught.value.code == "AD864"
    assert place.files() == before
    assert (place.open().id, place.open().title) == (team.id, "The team's")
    with pytest.raises(IntegrityError):
        open_catalogue(place.storage(), "0" * 32)


def test_of_many_who_create_one_registry_one_wins(place: Place) -> None:
    found = at_once(*[lambda: init_registry(place.storage()) for _ in range(4)])
    made = [one for one in found if isinstance(one, Catalogue)]
    assert [one.id for one in made] == [place.open().id]
    assert {one.code for one in found if isinstance(one, AdapterdockError)} == {"AD864"}


def test_an_empty_place_is_not_a_registry(place: Place) -> None:
    with pytest.raises(SourceError) as caught:
        place.open()
    assert caught.value.code == "AD860"


# --- publish --------------------------------------------------------------------------------------


def test_contents_come_first_then_the_entry_then_the_journal(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    files = contents(tmp_path / "files", "one", "two")
    counted = Counted(team.storage)
    publish_entry(open_catalogue(counted), entry("1.0.0", files), files)
    created = [path for what, path in counted.calls if what == "create"]
    order = [*map(blob_file, files), entry_file(NAME, "1.0.0"), f"journal/{file_of(1)}"]
    assert [path for path in created if path in order] == order
    there = place.files()
    assert [there[blob_file(digest)] for digest in files] == [b"one", b"two"]


def test_the_same_content_again_writes_nothing_and_other_content_is_refused(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    first = publish(team, tmp_path / "files", "1.0.0", description="Über 日本 👩‍💻 \u202e")
    before = place.files()
    counted = Counted(place.storage())
    again = publish(
        open_catalogue(counted),
        tmp_path / "files",
        "1.0.0",
        description="Über 日本 👩‍💻 \u202e",
        created="2027-01-01T00:00:00Z",
    )
    assert (again.new, again.uploaded) == (False, ())
    assert again.resolved.digest == first.resolved.digest
    assert place.files() == before
    with pytest.raises(IntegrityError) as caught:
        publish(team, tmp_path / "files", "1.0.0", description="Uber")
    assert caught.value.code == "AD864"
    assert place.files() == before
    assert resolve(place.open(), "1.0.0").entry.description == "Über 日本 👩‍💻 \u202e"


def test_of_many_publishers_of_one_version_one_wins(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    def publisher(number: int) -> Callable[[], Published]:
        files = contents(tmp_path / f"files{number}", f"weights {number}")
        wanted = entry("1.0.0", files, description=f"{number}")
        return lambda: publish_entry(place.open(), wanted, files)

    found = at_once(*[publisher(number) for number in range(6)])
    won = [one for one in found if isinstance(one, Published) and one.new]
    assert len(won) == 1
    assert [getattr(one, "code", None) for one in found if one not in won] == ["AD864"] * 5
    assert resolve(team, "1.0.0").digest == won[0].resolved.digest
    assert [line["entry"] for line in journal(place)] == [won[0].resolved.digest]
    (file,) = won[0].resolved.entry.files
    assert sha256_bytes(place.files()[blob_file(file.sha256)]) == file.sha256


_PUBLISHER = """
import sys
from pathlib import Path
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.registry.catalogue.catalogue import open_catalogue
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.catalogue.promote import promote
from support.published import publish
url, folder, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
team = open_catalogue(open_storage(url, directory=folder))
sys.stdin.readline()
try:
    print("won" if publish(team, folder / number, "1.0.0", owner=number).new else "again")
except AdapterdockError as error:
    print(error.code)
publish(team, folder / number, f"2.0.{number}")
promote(team, "refunds", f"2.0.{number}", "prod", by=number)
"""


# without "renames": other processes would have hard links
@pytest.mark.parametrize("place", ["links", "s3", AZURE], indirect=True)
def test_of_many_processes_one_wins_and_none_loses_anything(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), root])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, place.url, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(4)
    ]
    done = [process.communicate("\n", timeout=300) for process in processes]
    assert not any(process.returncode for process in processes), done
    assert sorted(out.strip() for out, _ in done) == ["AD864", "AD864", "AD864", "won"]
    rows = history(team, NAME, "prod")
    assert [row.serial for row in rows] == [1, 2, 3, 4]
    assert {row.by for row in rows} == {"0", "1", "2", "3"}
    lines = journal(place)
    assert len(lines) == 5 + 4
    assert len({(line["what"], line["version"]) for line in lines}) == 9


def test_a_publisher_that_is_killed_anywhere_leaves_nothing_or_a_version(
    place: Place, tmp_path: Path
) -> None:
    files = contents(tmp_path / "files", "one", "two")
    place.init()
    finished, moment = False, 0
    while not finished:
        counted = Counted(place.storage())
        killed, version = open_catalogue(counted), f"1.0.{moment}"
        counted.calls.clear()
        counted.break_off = moment
        try:
            publish_entry(killed, entry(version, files), files)
            finished = True
        except KeyboardInterrupt:
            pass
        team = place.open()
        published = version in map(str, team.listing(NAME).versions)
        if published:
            names = [blob_file(digest) for digest in files]
            assert {sha256_bytes(team.storage.read(name, 99)) for name in names} == set(files)
        again = publish_entry(team, entry(version, files), files)
        assert again.new is not published
        assert resolve(place.open(), version).digest == again.resolved.digest
        moment += 1
    assert moment > 6


def test_names_have_one_to_three_segments_and_do_not_see_one_another(
    team: Catalogue, tmp_path: Path
) -> None:
    names = ("billing", "billing/refunds", "billing/refunds/v2.de", "billings-eu")
    for number, name in enumerate(names):
        publish(team, tmp_path / "files", f"1.0.{number}", name=name)
        promote(team, name, f"1.0.{number}", "prod")
    assert team.names() == sorted(names)
    for number, name in enumerate(names):
        assert [str(v) for v in team.listing(name).versions] == [f"1.0.{number}"]
        assert resolve(team, "prod", name).entry.version == f"1.0.{number}"
        assert len(history(team, name, "prod")) == 1


def test_writers_at_once_leave_a_journal_with_every_line(place: Place, tmp_path: Path) -> None:
    place.init()

    def writer(number: int) -> Callable[[], object]:
        def act() -> None:
            for patch in range(3):
                publish(place.open(), tmp_path / f"files{number}", f"{number}.0.{patch}")

        return act

    assert at_once(*[writer(number) for number in range(4)]) == [None] * 4
    lines = journal(place)
    assert {line["version"] for line in lines} == {f"{n}.0.{p}" for n in range(4) for p in range(3)}
    assert len(lines) == 12
    last = head(place.storage())
    assert last is not None
    assert last.number == 12


def test_a_mirror_takes_no_change(team: Catalogue, place: Place, tmp_path: Path) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    team.storage.create("mirror.json", b"{}")
    before = place.files()
    for act in (
        lambda: publish(team, tmp_path / "files", "1.0.1"),
        lambda: promote(team, NAME, "1.0.0", "prod"),
        lambda: demote(team, NAME, "prod"),
        lambda: mark(team, NAME, "1.0.0", "yank"),
    ):
        with pytest.raises(PolicyError) as caught:
            act()
        assert caught.value.code == "AD867"
    assert place.files() == before


# --- find -----------------------------------------------------------------------------------------


def test_versions_ranges_aliases_and_digests_select(team: Catalogue, tmp_path: Path) -> None:
    versions = ("1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.2")
    digests = {v: publish(team, tmp_path / "files", v).resolved.digest for v in versions}
    promote(team, NAME, "1.9.0", "prod")
    cases = {
        "1.0.0": "1.0.0",
        "^1": "1.10.0",
        "~1.9": "1.9.0",
        ">=1,<1.10": "1.9.0",
        ">=1": "1.10.0",
        ">=2.0.0-rc.1": "2.0.0-rc.2",
        "prod": "1.9.0",
        digests["1.9.0"]: "1.9.0",
    }
    assert {text: resolve(team, text).entry.version for text in cases} == cases
    assert [str(version) for version in team.listing(NAME).versions] == list(versions)
    for text in ("3.0.0", "^2", "next", "sha256:" + "0" * 64):
        with pytest.raises(SourceError) as caught:
            resolve(team, text)
        assert caught.value.code == "AD861"


def test_files_with_unknown_names_change_nothing(team: Catalogue, tmp_path: Path) -> None:
    publish(team, tmp_path / "files", "1.0.0")
    promote(team, NAME, "1.0.0", "prod")
    mark(team, NAME, "1.0.0", "deprecate", why="old")
    before = _known(team)
    folders = ("", "adapters/refunds/", "journal/", f"{alias_folder(NAME, 'prod')}/")
    folders += ("adapters/refunds/versions/", f"{marks_folder(NAME, '1.0.0')}/")
    for folder in folders:
        for name in ("notes.txt", "0000002.json", "000000002.json", "01.0.0.json", "x.json.bak"):
            team.storage.create(f"{folder}{name}", b"?")
    team.storage.create("adapters/refunds/aliases/Prod/00000001.json", b"?")
    assert _known(team) == before
    publish(team, tmp_path / "files", "1.0.1")
    promote(team, NAME, "1.0.1", "prod")
    assert resolve(team, "prod").entry.version == "1.0.1"


def _known(team: Catalogue) -> object:
    listing = team.listing(NAME)
    last = head(team.storage)
    return (
        (list(map(str, listing.versions)), listing.aliases, team.mark(listing, "1.0.0")),
        (resolve(team, "^1").digest, resolve(team, "prod").alias, team.names()),
        None if last is None else last.number,
    )


# --- change ---------------------------------------------------------------------------------------


def test_an_alias_has_a_history_and_a_mark_too(team: Catalogue, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)
    promote(team, NAME, "1.0.0", "prod", by="ada")
    promote(team, NAME, "1.1.0", "prod", by="bo", why="Besser für 日本")
    assert promote(team, NAME, "1.1.0", "prod") is None
    demote(team, NAME, "prod", by="ada")
    rows = [(row.serial, row.version, row.by, row.why) for row in history(team, NAME, "prod")]
    assert rows == [
        (1, "1.0.0", "ada", None),
        (2, "1.1.0", "bo", "Besser für 日本"),
        (3, None, "ada", None),
    ]
    with pytest.raises(SourceError):
        resolve(team, "prod")
    assert mark(team, NAME, "1.1.0", "yank", why="wrong") is not None
    assert mark(team, NAME, "1.1.0", "yank", why="wrong") is None
    assert resolve(team, "^1").entry.version == "1.0.0"
    assert resolve(team, "1.1.0").entry.version == "1.1.0"
    mark(team, NAME, "1.1.0", "unyank")
    assert resolve(team, "^1").entry.version == "1.1.0"


def test_promotions_at_once_are_all_in_the_history(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(team, tmp_path / "files", version)

    def mover(number: int) -> Callable[[], object]:
        def act() -> None:
            for turn in range(3):
                promote(place.open(), NAME, f"1.{(number + turn) % 2}.0", "prod", by=f"{number}")

        return act

    assert at_once(*[mover(number) for number in range(4)]) == [None] * 4
    rows = history(team, NAME, "prod")
    assert [row.serial for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.version != row.before for row in rows)
    serials = [line["serial"] for line in journal(place) if line["what"] == "promote"]
    assert sorted(map(str, serials)) == sorted(str(row.serial) for row in rows)


def _moved(team: Catalogue, folder: Path, versions: Iterable[str]) -> Seen:
    """Promotes to each version; what a lock keeps of the last value."""
    for version in versions:
        publish(team, folder, version)
        promote(team, NAME, version, "prod")
    seen = resolve(team, "prod").alias
    assert seen is not None
    return seen


def test_a_gap_is_refused_by_readers_and_writers(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    _moved(team, tmp_path / "files", ("1.0.0", "1.1.0", "1.2.0"))
    team.storage.remove(f"{alias_folder(NAME, 'prod')}/{file_of(2)}")
    before = place.files()
    for act in (
        lambda: resolve(team, "prod"),
        lambda: history(team, NAME, "prod"),
        lambda: promote(team, NAME, "1.0.0", "prod"),
        lambda: demote(team, NAME, "prod"),
    ):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.code == "AD863"
    assert place.files() == before


def test_a_value_that_was_changed_is_refused(team: Catalogue, place: Place, tmp_path: Path) -> None:
    seen = _moved(team, tmp_path / "files", ("1.0.0", "1.1.0"))
    path = f"{alias_folder(NAME, 'prod')}/{file_of(1)}"
    place.replace(path, team.storage.read(path, 9999).replace(b"1.0.0", b"1.1.0"))
    for act in (
        lambda: history(team, NAME, "prod"),
        lambda: promote(team, NAME, "1.0.0", "prod"),
        lambda: resolve(team, "prod", seen=Seen(1, seen.digest)),
    ):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.code == "AD863"


def test_an_alias_that_went_back_or_was_forked_is_refused(team: Catalogue, tmp_path: Path) -> None:
    seen = _moved(team, tmp_path / "files", ("1.0.0", "1.1.0"))
    promote(team, NAME, "1.0.0", "prod")
    assert resolve(team, "prod", seen=seen).entry.version == "1.0.0"
    for number in (3, 2):
        team.storage.remove(f"{alias_folder(NAME, 'prod')}/{file_of(number)}")
    with pytest.raises(IntegrityError, match="went back"):
        resolve(team, "prod", seen=seen)
    promote(team, NAME, "1.1.0", "prod", why="another history")
    with pytest.raises(IntegrityError, match="another value 2"):
        resolve(team, "prod", seen=seen)


def test_an_entry_that_was_changed_is_refused(
    team: Catalogue, place: Place, tmp_path: Path
) -> None:
    seen = _moved(team, tmp_path / "files", ("1.0.0",))
    path = entry_file(NAME, "1.0.0")
    place.replace(path, team.storage.read(path, 99_999).replace(b'"rank":8', b'"rank":9'))
    for act in (
        lambda: resolve(team, "prod", seen=seen),
        lambda: team.entry(NAME, "1.0.0", "sha256:" + "0" * 64),
        lambda: publish(team, tmp_path / "files", "1.0.0"),
    ):
        with pytest.raises(IntegrityError):
            act()


# --- real adapters, and their use -----------------------------------------------------------------


@pytest.fixture
def desk(project: Project, place: Place, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A base, an adapter, and a manifest that calls the place ``team``."""
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": place.url})
    monkeypatch.chdir(project.folder)
    return project


def test_an_adapter_is_published_once_and_pulled_with_the_same_bytes(
    desk: Project, place: Place, tmp_path: Path
) -> None:
    place.init()
    said = {"description": "Über 日本", "metrics": {"accuracy": 0.91}, "licence": "Apache-2.0"}
    dry = publish_folder("tone", "team/eu/refunds@1.0.0", manifest=desk.manifest, dry_run=True)
    assert dry is None
    assert not [path for path in place.files() if path.startswith("adapters/")]
    done = publish_folder("tone", "team/eu/refunds@1.0.0", manifest=desk.manifest, **said)
    assert done is not None
    assert done.new
    assert len(done.uploaded) == 2
    before = place.files()
    again = publish_folder("tone", "team/eu/refunds@1.0.0", manifest=desk.manifest, **said)
    assert again is not None
    assert (again.new, again.uploaded) == (False, ())
    assert place.files() == before
    assert str(desk.folder).encode() not in before[entry_file("eu/refunds", "1.0.0")]
    changed = desk.adapter("tone", seed=7)
    with pytest.raises(IntegrityError) as caught:
        publish_folder(changed, "team/eu/refunds@1.0.0", manifest=desk.manifest, **said)
    assert caught.value.code == "AD864"
    assert place.files() == before
    promote(place.open(), "eu/refunds", "1.0.0", "prod")

    for selector in ("1.0.0", "^1", "prod", done.resolved.digest):
        source = f"registry://team/eu/refunds@{selector}"
        desk.write({"tone": source}, registries={"team": place.url})
        desk.lock_file.unlink(missing_ok=True)
        store = Store(tmp_path / f"store-{len(selector)}")
        lock(desk.manifest, store=store)
        pinned = desk.lock.adapters["tone"].registry
        assert pinned is not None
        assert (pinned.version, pinned.entry) == ("1.0.0", done.resolved.digest)
        shutil.rmtree(store.root)
        pull(desk.manifest, store=store, frozen=True)
        objects = {path.name for path in store.objects.rglob("*") if path.is_file()}
        wanted = {file.sha256.removeprefix("sha256:") for file in done.resolved.entry.files}
        assert wanted <= objects


def test_an_adapter_that_does_not_fit_is_published_nowhere(desk: Project, place: Place) -> None:
    place.init()
    desk.adapter("tone", modules={"model.layers.0.self_attn.q_proj": (8, 8)})
    before = place.files()
    with pytest.raises(FitError):
        publish_folder("tone", "team/refunds@1.0.0", manifest=desk.manifest)
    assert place.files() == before


def test_a_registry_on_a_web_server_is_read_as_on_its_storage(
    desk: Project, place: Place, web: WebServer, tmp_path: Path
) -> None:
    """The same files, served: every selector selects the same, and nothing can be written."""
    team = place.init()
    for number in range(3):
        desk.adapter("tone", seed=number)
        publish_folder("tone", f"team/refunds@1.{number}.0", manifest=desk.manifest)
    promote(team, NAME, "1.0.0", "prod")
    promote(team, NAME, "1.1.0", "prod", why="besser")
    mark(team, NAME, "1.2.0", "yank", why="wrong")
    web.files = {f"/team/{path}": raw for path, raw in place.files().items()}
    served = open_catalogue(open_storage(f"{web.url}/team", directory=tmp_path))
    assert served.id == team.id
    for selector in ("1.0.0", "1.2.0", "^1", "prod"):
        assert resolve(served, selector).digest == resolve(team, selector).digest
    assert resolve(served, "^1").entry.version == "1.1.0"
    for act in (
        lambda: promote(served, NAME, "1.0.0", "prod"),
        lambda: mark(served, NAME, "1.0.0", "yank"),
        lambda: publish(served, tmp_path / "files", "9.0.0"),
        lambda: init_registry(open_storage(f"{web.url}/other", directory=tmp_path)),
    ):
        with pytest.raises(AdapterdockError) as caught:
            act()
        assert caught.value.code in ("AD867", "AD871")
    assert {method for method, _, _ in web.requests} <= {"GET", "HEAD"}
