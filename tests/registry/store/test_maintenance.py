"""Making room takes the right things, and damage is found."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import StoreError
from adapterdock.manifests.findings.finding import Severity
from adapterdock.manifests.owner import ELSEWHERE_AGE, Owner
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.store.link_trees import materialise
from adapterdock.registry.store.maintenance import GRACE, collect, entries, size, verify
from adapterdock.registry.store.store import Store
from support.cache import files, objects, put, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def age(store: Store, digest: str, seconds: float) -> None:
    """As if ``digest`` had last been used ``seconds`` ago."""
    then = time.time() - seconds
    for path in (store.object_path(digest), store.notes / digest[7:], store.trees / digest[7:]):
        if path.exists():
            os.utime(path, (then, then))


def old(store: Store, name: bytes, days: int, size: int = 100) -> str:
    digest = put(store, name * size)
    age(store, digest, days * 86400)
    return digest


def test_the_least_recently_used_goes_first_and_no_more_than_needed(store: Store) -> None:
    b, a, c = old(store, b"b", 2), old(store, b"a", 3), old(store, b"c", 1)
    assert [entry.digest for entry in entries(store)] == [a, b, c]
    freed = collect(store, max_size=200)
    assert freed.digests == (a,)
    assert freed.size == 100
    assert size(store) == 200
    assert files(store.root) == objects(b, c)
    assert collect(store, max_size=200).digests == ()


def test_finding_an_object_is_using_it(store: Store) -> None:
    a, b = old(store, b"a", 3), old(store, b"b", 2)
    store.find(a)
    assert [entry.digest for entry in entries(store)] == [b, a]
    assert collect(store, max_size=100).digests == (b,)


def test_an_object_without_a_note_counts_from_its_publication(store: Store) -> None:
    a, b = old(store, b"a", 3), old(store, b"b", 2)
    (store.notes / a[7:]).unlink()
    assert [entry.digest for entry in entries(store)] == [a, b]
    store.find(a)
    assert [entry.digest for entry in entries(store)] == [b, a]


def test_young_and_held_objects_stay(store: Store) -> None:
    young = put(store, b"young")
    held, gone = old(store, b"h", 9), old(store, b"g", 9)
    with store.hold([held]):
        assert collect(store, max_size=0).digests == (gone,)
    assert files(store.root) == objects(young, held)
    assert collect(store, max_size=0).digests == (held,)
    age(store, young, GRACE - 60)
    assert collect(store, max_size=0).digests == ()
    age(store, young, GRACE + 60)
    assert collect(store, max_size=0).digests == (young,)
    assert size(store) == 0


def test_without_a_size_no_object_goes(store: Store) -> None:
    a = old(store, b"a", 900)
    assert collect(store).digests == ()
    assert files(store.root) == objects(a)


def test_a_hold_of_another_process_counts_while_it_lives(store: Store) -> None:
    held = old(store, b"h", 9)
    code = """
    import sys, time
    from pathlib import Path
    from adapterdock.registry.store.store import Store
    with Store(Path(sys.argv[1])).hold([sys.argv[2]]):
        print("held", flush=True)
        time.sleep(60)
    """
    process = run(code, store.root, held)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert collect(store, max_size=0).digests == ()
    process.kill()
    process.communicate()
    assert collect(store, max_size=0).digests == (held,)
    assert list(store.holds.iterdir()) == []


def test_remains_of_a_process_elsewhere_are_removed_by_age(store: Store) -> None:
    put(store, b"x")
    other = Owner("0" * 12, 1, 1)
    assert other.alive() is None
    left = store.tmp / other.new_name()
    left.mkdir()
    (left / "new").touch()
    collect(store)
    assert left.exists()
    then = time.time() - ELSEWHERE_AGE - 60
    os.utime(left, (then, then))
    collect(store)
    assert left.exists(), "its file is young"
    os.utime(left / "new", (then, then))
    collect(store)
    assert not left.exists()


def test_a_reused_process_id_is_another_process() -> None:
    me = Owner.me()
    assert Owner.of(me.new_name()) == me
    assert me.alive() is True
    assert Owner(me.space, me.pid, me.started + 1).alive() is False
    assert Owner(me.space, 2**22 + 7, 5).alive() is False
    assert Owner.of("something else") is None


def test_links_go_when_unused_and_stay_while_held_or_young(store: Store, tmp_path: Path) -> None:
    a, b = old(store, b"a", 9), old(store, b"b", 9)
    trees = {d: materialise(store, {"f": d}) for d in (a, b)}
    collect(store, max_size=0)
    assert all(tree.exists() for tree in trees.values()), "young"
    for digest, tree in trees.items():
        age(store, digest, 86400)
        age(store, "sha256:" + tree.name, 86400)
    (first, second) = entries(store)
    assert first.trees == (trees[first.digest].name,)
    assert second.trees == (trees[second.digest].name,)
    with store.hold([a]):
        assert collect(store, max_size=0).digests == (b,)
        assert (trees[a] / "f").read_bytes() == b"a" * 100
        assert not trees[b].exists()
    collect(store, max_size=0)
    assert files(store.root) == set()


def test_an_object_that_someone_begins_to_use_meanwhile_is_put_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = old(store, b"a", 3), old(store, b"b", 2)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == a[7:]:
            Store(store.root).find(a)  # another process, at the worst moment
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert collect(store, max_size=0).digests == (b,)
    assert store.find(a)


def test_a_gc_that_is_killed_leaves_a_valid_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {old(store, name, 5) for name in (b"a", b"b", b"c")}
    materialise(store, dict(zip("abc", digests, strict=True)))
    for path in store.trees.iterdir():
        os.utime(path, (0, 0))
    for digest in digests:
        age(store, digest, 86400)
    real, steps = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            collect(store, max_size=0)
    left = [digest for digest in digests if store.find(digest)]
    assert len(left) == 2
    assert verify(store) == []
    assert files(store.root) == objects(*left)


def test_gc_works_on_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a = old(store, b"a", 3)

    def full(self: Path, *_arguments: object, **_options: object) -> None:
        if not self.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    for name in ("mkdir", "touch", "write_text", "write_bytes"):
        monkeypatch.setattr(Path, name, full)
    assert collect(store, max_size=0).digests == (a,)
    assert files(store.root) == set()


def test_readers_and_writers_during_gc_see_complete_files_or_none(store: Store) -> None:
    contents = {put(store, bytes([n]) * 5000): bytes([n]) * 5000 for n in range(8)}
    end, wrong, seen = time.monotonic() + 1.0, [], 0

    def use() -> None:
        nonlocal seen
        mine = Store(store.root)
        while time.monotonic() < end:
            for digest, content in contents.items():
                try:
                    path = mine.find(digest)
                    if path is not None and path.read_bytes() != content:
                        wrong.append(digest)
                    seen += path is not None
                except FileNotFoundError:
                    pass  # only without any grace
                put(mine, content)

    def make_room() -> None:
        while time.monotonic() < end:
            collect(Store(store.root), max_size=10_000, grace=0)

    errors: list[BaseException] = []

    def guarded(act) -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=guarded, args=[act]) for act in (use, use, make_room, make_room)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert wrong == []
    assert seen > 0
    assert verify(store) == []
    assert list(store.tmp.iterdir()) == []


def test_verify_reads_everything_reports_damage_and_takes_it_out(store: Store) -> None:
    good, bad, cut = put(store, b"good"), put(store, b"bad one"), put(store, b"cut one")
    for digest, content in ((bad, b"bad two"), (cut, b"cut")):
        path = store.object_path(digest)
        times = path.stat()
        path.chmod(0o644)
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (store.objects / "notes.txt").write_text("mine")
    read: list[int] = []
    findings = verify(store, read.append)
    assert sum(read) == 4 + 7 + 3
    assert sorted((f.code, f.severity) for f in findings) == [
        ("AD616", Severity.ERROR),
        ("AD616", Severity.ERROR),
        ("AD617", Severity.WARNING),
    ]
    assert {f.expected for f in findings} == {bad, cut, None}
    assert store.find(bad) is None
    assert len(list(store.quarantine.iterdir())) == 2
    assert [f.code for f in verify(store)] == ["AD617"]
    put(store, b"bad one")
    assert store.find(bad)
    collect(store)
    assert files(store.root) == objects(good, bad) | {"objects/sha256/notes.txt"}


def test_verify_finds_damage_that_no_time_stamp_shows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A failing disk changes bits and no time: the memo still holds, and verify reads anyway.
    digest = put(store, b"good")
    path = store.object_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"evil")
    store.verified.record(path, digest)
    assert store.find(digest) == path
    assert [f.code for f in verify(store)] == ["AD616"]
    assert store.find(digest) is None


def test_entries_say_size_use_and_origin(store: Store) -> None:
    put(store, b"some", origin="hf://org/name/file")
    put(store, b"some", origin="s3://other/place")
    (entry,) = entries(store)
    assert (entry.digest, entry.size) == (sha256_bytes(b"some"), 4)
    assert entry.origin == "hf://org/name/file"
    assert abs(entry.last_used - time.time()) < 60


def test_a_cache_that_cannot_be_listed_is_a_finding(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"x")

    def refuse(self: Path):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for act in (entries, size, verify, collect):
        with pytest.raises(StoreError) as caught:
            act(store)
        assert caught.value.code == "AD604"


@pytest.mark.parametrize("act", ["fetch", "load"])
def test_the_next_command_removes_the_remains_of_a_killed_one(store: Store, act: str) -> None:
    put(store, b"content")
    code = """
    import os, signal, sys
    from pathlib import Path
    from adapterdock.registry.store.store import Store
    store = Store(Path(sys.argv[1]))
    with store.hold(["sha256:" + "0" * 64]), store.temporary() as path:
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = run(code, store.root)
    process.communicate(timeout=60)
    assert process.returncode == -9
    folder = store.tmp if act == "fetch" else store.holds
    assert len(list(folder.iterdir())) == 1
    with store.temporary() if act == "fetch" else store.hold([]):
        assert len(list(folder.iterdir())) == 1, "its own"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_folder_that_is_not_a_cache_is_reported_and_keeps_its_files(
    tmp_path: Path, what: str
) -> None:
    place = tmp_path / "place"
    if what == "file":
        place.write_text("mine")
    else:
        for name in ("notes", "quarantine", "tmp"):
            (place / name).mkdir(parents=True)
            (place / name / "letter.txt").write_text("mine")
            os.utime(place / name / "letter.txt", (0, 0))
    before = files(tmp_path)
    (finding,) = verify(Store(place))
    assert (finding.code, finding.severity) == ("AD399", Severity.ERROR)
    with pytest.raises(StoreError) as caught:
        collect(Store(place), max_size=0)
    assert caught.value.code == "AD399"
    assert files(tmp_path) == before


def test_a_place_where_a_cache_may_be_is_clean(tmp_path: Path) -> None:
    assert verify(Store(tmp_path / "not there")) == []
    assert verify(Store(tmp_path)) == [], "empty"
    put(Store(tmp_path), b"content")
    assert verify(Store(tmp_path)) == []


def test_gc_leaves_files_of_others_alone_in_a_folder_that_became_a_cache(store: Store) -> None:
    put(store, b"content")
    for folder in (store.notes, store.quarantine, store.tmp, store.holds):
        folder.mkdir(exist_ok=True)
        (folder / "letter.txt").write_text("mine")
        os.utime(folder / "letter.txt", (0, 0))
    collect(store, max_size=0)
    assert len(list(store.root.rglob("letter.txt"))) == 4
