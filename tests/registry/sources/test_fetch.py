"""Fetching: verified, once, all or nothing, and quick to leave."""

from __future__ import annotations

import errno
import http.server
import resource
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    IntegrityError,
    OfflineError,
    SourceError,
    StoreError,
)
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.findings.store import CACHE_IO
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.digests import git_blob_sha1, sha256_bytes
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.sources.fetch import Request, fetch, fetch_all
from adapterdock.registry.store.maintenance import collect, entries
from adapterdock.registry.store.store import Store
from support.cache import files, objects, put, run
from support.folders import MemoryFolder, PlaceFolder, fact

A, B = b"adapter " * 1000, b"config"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def folder() -> MemoryFolder:
    return MemoryFolder({"w.safetensors": A, "sub/config.json": B})


class Recorder:
    """A progress that is not thread-safe and notices if it had to be."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int | None]] = []
        self.inside = False

    def _call(self, what: str, file: str, number: int | None) -> None:
        assert not self.inside
        self.inside = True
        time.sleep(0.001)
        self.calls.append((what, file, number))
        self.inside = False

    def start(self, file: str, total: int | None) -> None:
        self._call("start", file, total)

    def advance(self, file: str, count: int) -> None:
        self._call("advance", file, count)

    def done(self, file: str) -> None:
        self._call("done", file, None)


def codes(error: pytest.ExceptionInfo[StoreError] | pytest.ExceptionInfo[SourceError]) -> list[str]:
    return sorted(finding.code for finding in error.value.findings)


# What succeeds


def test_files_are_downloaded_verified_and_published(store: Store, folder: MemoryFolder) -> None:
    wanted = [fact("w.safetensors", A, version="v1"), fact("sub/config.json", B)]
    got = fetch(folder, wanted, store)
    assert list(got) == ["w.safetensors", "sub/config.json"]
    assert got["w.safetensors"].fact == wanted[0]
    assert got["w.safetensors"].path == store.object_path(sha256_bytes(A))
    assert got["sub/config.json"].path.read_bytes() == B
    assert files(store.root) == objects(sha256_bytes(A), sha256_bytes(B))
    assert {entry.origin for entry in entries(store)} == {
        "s3://bucket/folder/w.safetensors",
        "s3://bucket/folder/sub/config.json",
    }


def test_unknown_digests_are_filled_in(store: Store, folder: MemoryFolder) -> None:
    wanted = [FileFact("w.safetensors", len(A)), FileFact("sub/config.json", len(B))]
    got = fetch(folder, wanted, store)
    assert got["w.safetensors"].fact == fact("w.safetensors", A)
    assert got["sub/config.json"].fact == fact("sub/config.json", B)


def test_files_in_the_store_need_no_request_to_the_source(
    store: Store, folder: MemoryFolder
) -> None:
    wanted = [fact("w.safetensors", A), fact("sub/config.json", B)]
    first = fetch(folder, wanted, store)
    silent = MemoryFolder({})
    silent.files = lambda: pytest.fail("asked")  # type: ignore[method-assign]
    silent.local = lambda path: pytest.fail("asked")  # type: ignore[method-assign]
    assert fetch(silent, wanted, Store(store.root)) == first
    assert silent.downloads == []


def test_a_file_that_several_requests_want_is_downloaded_once(store: Store) -> None:
    one = MemoryFolder({"a": A, "b": A})
    two = MemoryFolder({"c": A}, address="s3://bucket/two")
    requests = [
        Request(one, (fact("a", A), fact("b", A))),
        Request(two, (fact("c", A, version="its own"),)),
        Request(two, ()),
    ]
    first, second, third = fetch_all(requests, store)
    assert len(one.downloads + two.downloads) == 1
    assert first["a"].path == first["b"].path == second["c"].path
    assert second["c"].fact == fact("c", A, version="its own")
    assert third == {}


def test_one_address_at_two_endpoints_is_two_files(store: Store) -> None:
    folders = [MemoryFolder({"w": content}) for content in (A, A[::-1])]
    requests = [Request(folder, (FileFact("w", len(A)),)) for folder in folders]
    one, two = fetch_all(requests, store)
    assert (one["w"].path.read_bytes(), two["w"].path.read_bytes()) == (A, A[::-1])


def test_files_with_a_place_of_their_own_stay_there(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "adapter"
    root.mkdir()
    (root / "w").write_bytes(A)
    folder = PlaceFolder({"w": A, "new": B}, address="./adapter", root=root)
    got = fetch(folder, [fact("w", A), FileFact("new", len(B))], store)
    assert got["w"].path == root / "w"
    assert got["new"].path == root / "new"
    assert got["new"].fact == fact("new", B)
    assert folder.downloads == ["new"]
    assert entries(store) == []


def test_a_verified_local_file_is_not_hashed_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").write_bytes(A)
    folder = PlaceFolder({}, address=str(tmp_path), root=tmp_path)
    now = time.time_ns
    monkeypatch.setattr("adapterdock.registry.store.verified.time.time_ns", lambda: now() + 10**10)
    for expected in (1, 0):
        progress = Recorder()
        fetch(folder, [fact("w", A)], Store(store.root), progress=progress)
        assert [call[0] for call in progress.calls].count("advance") == expected


def test_progress_gets_every_byte_one_call_at_a_time(store: Store) -> None:
    contents = {f"f{n}": bytes([n]) * 1000 for n in range(20)}
    progress = Recorder()
    wanted = [fact(name, data) for name, data in contents.items()]
    fetch(MemoryFolder(contents), wanted, store, progress=progress)
    for name in contents:
        label = f"s3://bucket/folder/{name}"
        mine = [call for call in progress.calls if call[1] == label]
        assert mine[0] == ("start", label, 1000)
        assert mine[-1] == ("done", label, None)
        assert sum(n or 0 for what, _, n in mine if what == "advance") == 1000


def test_downloads_run_in_parallel_on_at_most_jobs_threads(store: Store) -> None:
    contents = {f"f{n}": bytes([n]) * 10 for n in range(9)}
    running, most = 0, 0
    lock, together = threading.Lock(), threading.Barrier(3)

    def during(_path: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(timeout=10)  # passes only if three are here at once
        with lock:
            running -= 1

    wanted = [fact(name, data) for name, data in contents.items()]
    fetch(MemoryFolder(contents, during=during), wanted, store, jobs=3)
    assert most == 3


def test_complete_files_stay_while_the_rest_is_fetched(store: Store) -> None:
    there = put(store, b"there before")

    def during(path: str) -> None:
        if path == "second":
            assert collect(Store(store.root), 0, grace=0).digests == ()

    folder = MemoryFolder({"first": A, "second": B}, during=during)
    wanted = [fact("there", b"there before"), fact("first", A), fact("second", B)]
    got = fetch(folder, wanted, store, jobs=1)
    assert got["first"].path.read_bytes() == A
    assert set(collect(store, 0, grace=0).digests) == {there, sha256_bytes(A), sha256_bytes(B)}


def test_an_empty_file_and_an_empty_list(store: Store) -> None:
    assert fetch(MemoryFolder({"e": b""}), [fact("e", b"")], store)["e"].path.stat().st_size == 0
    assert fetch(MemoryFolder({}), [], store) == {}
    assert fetch_all([], store) == ()


# What must fail


@pytest.mark.parametrize(
    ("body", "code"),
    [(A[:-1], "AD611"), (A + b"more", "AD611"), (A[::-1], "AD610"), (b"", "AD611")],
    ids=["truncated", "longer", "other content", "empty"],
)
def test_a_wrong_body_is_refused_and_leaves_nothing(store: Store, body: bytes, code: str) -> None:
    # The listing is right; only the body is not.
    folder = MemoryFolder({"w": body}, listed={"w": fact("w", A)})
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, [fact("w", A)], store, where=Where("m.yaml", ("adapters", "a"), 3))
    assert codes(caught) == [code]
    assert "s3://bucket/folder/w" in str(caught.value)
    assert "m.yaml:3 (adapters.a)" in str(caught.value)
    assert files(store.root) == set()
    assert fetch(MemoryFolder({"w": A}), [fact("w", A)], store)["w"].path.read_bytes() == A


def test_a_body_without_end_is_cut_off(store: Store) -> None:
    class Endless(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            assert on_bytes is not None
            with into.open("wb", buffering=0) as stream:
                for _ in range(10_000):
                    stream.write(bytes(1000))
                    on_bytes(1000)
            return into

    folder = Endless({}, listed={"w": fact("w", A)})
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, [fact("w", A)], store)
    assert codes(caught) == ["AD611"]
    assert "more than 8000 bytes" in str(caught.value)


def test_a_transfer_that_starts_over_counts_twice_and_is_fine(store: Store) -> None:
    class Again(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            super().download(path, into, on_bytes)
            return super().download(path, into, on_bytes)

    assert fetch(Again({"w": A}), [fact("w", A)], store)["w"].path.read_bytes() == A


def test_all_changes_since_the_lock_are_reported_before_any_transfer(store: Store) -> None:
    folder = MemoryFolder(
        {"same": A, "digest": A, "size": A, "version": A},
        listed={
            "same": fact("same", A),
            "digest": fact("digest", B, size=len(A)),
            "size": FileFact("size", 7),
            "version": FileFact("version", len(A), None, "v2"),
            "renamed": FileFact("renamed", len(A), None, "v2"),
        },
    )
    wanted = [
        fact("same", A),
        fact("digest", A),
        fact("size", b"12345678"),
        FileFact("version", len(A), None, "v1"),
        fact("renamed", A, version="v1"),
        fact("gone", A[1:]),
    ]
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, wanted, store)
    assert codes(caught) == ["AD612"] * 4
    for name in ("digest", "size", "version", "gone"):
        assert f"s3://bucket/folder/{name} " in str(caught.value)
    assert folder.downloads == []
    assert folder.listings == 1


def test_another_version_with_the_locked_content_is_fine(store: Store) -> None:
    folder = MemoryFolder({"w": A}, listed={"w": FileFact("w", len(A), None, "etag-2")})
    assert fetch(folder, [fact("w", A, version="etag-1")], store)["w"].path.read_bytes() == A


def test_a_changed_local_file_is_refused_and_all_are_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "size").write_bytes(A + b"x")
    (tmp_path / "digest").write_bytes(A[::-1])
    folder = PlaceFolder({}, address="./adapters", root=tmp_path)
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, [fact("size", A), fact("digest", A)], store)
    assert codes(caught) == ["AD614", "AD614"]
    assert "lock --upgrade" in str(caught.value)


@pytest.mark.parametrize("name", ["../out", "/abs", "a\\b"])
def test_a_path_that_leaves_the_folder_is_never_fetched(store: Store, name: str) -> None:
    folder = MemoryFolder({name: A})
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, [fact(name, A), replace(fact("x", A), sha256="sha1:1")], store)
    assert codes(caught) == ["AD620", "AD621"]
    assert folder.downloads == []
    assert not store.root.exists()


def failing(error: Exception) -> Callable[[str], None]:
    def during(path: str) -> None:
        if path.startswith("bad"):
            raise error

    return during


def test_the_first_failure_stops_the_rest_and_keeps_what_was_complete(store: Store) -> None:
    first_done = threading.Event()
    stopped: list[str] = []

    def during(path: str) -> None:
        if path == "bad":
            assert first_done.wait(10)
            raise SourceError(CACHE_IO.finding("the server went away"))
        if path.startswith("long"):
            time.sleep(0.2)

    contents = {"ok": A, "bad": B, **{f"long{n}": bytes([n]) * 10 for n in range(30)}}

    class Counting(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            try:
                return super().download(path, into, on_bytes)
            except BaseException:
                stopped.append(path)
                raise

    folder = Counting(contents, during=during)
    publish = store.publish

    def published(*arguments: object, **options: object) -> Path:
        path = publish(*arguments, **options)  # type: ignore[arg-type]
        first_done.set()
        return path

    store.publish = published  # type: ignore[method-assign]
    where = Where("m.yaml", ("base",))
    with pytest.raises(SourceError) as caught:
        fetch(folder, [fact(n, c) for n, c in contents.items()], store, jobs=4, where=where)
    assert [str(f.where) for f in caught.value.findings] == ["m.yaml (base)"]
    assert len(folder.downloads) < 12
    assert "bad" in stopped
    assert store.find(sha256_bytes(A))
    assert list(store.tmp.iterdir()) == []


def test_a_library_that_swallows_exceptions_is_stopped_too(store: Store) -> None:
    started = threading.Event()

    class Swallowing(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            assert on_bytes is not None
            if path == "bad":
                assert started.wait(10)
                raise SourceError(CACHE_IO.finding("the server went away"))
            for _ in range(1000):
                started.set()
                try:
                    on_bytes(1)
                except Exception:
                    continue  # as a retry loop would
                finally:
                    time.sleep(0.01)
            return into

    with pytest.raises(SourceError):
        fetch(Swallowing({"bad": A, "long": B}), [fact("bad", A), fact("long", B)], store)
    workers = [t for t in threading.enumerate() if t.name.startswith("adapterdock-")]
    for worker in workers:
        worker.join(1)
    assert not any(worker.is_alive() for worker in workers)


def test_simultaneous_failures_are_all_reported_under_the_most_serious_class(
    store: Store,
) -> None:
    together = threading.Barrier(3)

    class Failing(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            super().download(path, into)
            together.wait(10)
            if path == "source":
                raise SourceError(CACHE_IO.finding("no such bucket"))
            if path == "disk":
                raise OSError(errno.EIO, "Input/output error", "/dev/x")
            return into

    names = ("content", "source", "disk")
    listed = {name: FileFact(name, len(A)) for name in names}
    folder = Failing(dict.fromkeys(names, A[::-1]), listed=listed)
    wanted = [fact("content", A), FileFact("source", len(A)), FileFact("disk", len(A))]
    with pytest.raises(IntegrityError) as caught:
        fetch(folder, wanted, store)
    assert codes(caught) == ["AD606", "AD606", "AD610"]


def test_offline_stays_offline_and_a_bug_stays_a_bug(store: Store) -> None:
    for error in (OfflineError(CACHE_IO.finding("no network")), ZeroDivisionError("a bug")):
        with pytest.raises(type(error)) as caught:
            fetch(MemoryFolder({"bad": A}, during=failing(error)), [fact("bad", A)], store)
        assert caught.type is type(error)
        assert list(store.tmp.iterdir()) == []


# The disk


def test_files_larger_than_the_free_space_are_refused_before_any_transfer(
    store: Store, folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=len(A) - 1))
    with pytest.raises(StoreError) as caught:
        fetch(folder, [fact("w.safetensors", A)], store)
    assert codes(caught) == ["AD602"]
    assert folder.downloads == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(total=0, free=0))
    assert fetch(folder, [fact("w.safetensors", A)], store)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_reported_and_no_partial_file_stays(store: Store, wrapped: bool) -> None:
    class Wrapping(MemoryFolder):
        def download(
            self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
        ) -> Path:
            try:
                return super().download(path, into, on_bytes)
            except OSError as error:
                raise SourceError(CACHE_IO.finding("could not download")) from error

    folder = (Wrapping if wrapped else MemoryFolder)({"small": B, "big": bytes(1 << 20)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # a quota that the kernel really enforces
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError) as caught:
            fetch(folder, [fact("small", B), fact("big", bytes(1 << 20))], store, jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert codes(caught) == ["AD602"]
    assert files(store.root) == objects(sha256_bytes(B))
    assert fetch(folder, [fact("big", bytes(1 << 20))], store)


def test_an_unwritable_cache_is_reported_before_any_transfer(
    tmp_path: Path, folder: MemoryFolder
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        fetch(folder, [fact("w.safetensors", A)], Store(tmp_path / "file"))
    assert codes(caught) == ["AD601"]
    assert folder.downloads == []


# The Hub's own cache


@pytest.fixture
def hub(tmp_path: Path) -> PlaceFolder:
    """Like the Hub's cache: a snapshot of links to blobs."""
    blob = tmp_path / "hub" / "blobs" / "b1"
    snapshot = tmp_path / "hub" / "snapshots" / "c1"
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blob.write_bytes(A)
    (snapshot / "w").symlink_to(blob)
    return PlaceFolder({"w": A, "new": B}, address="hf://org/name@c1", root=snapshot)


def test_hub_files_are_used_where_they_are_even_without_a_cache_of_ours(
    hub: PlaceFolder, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    got = fetch(hub, [fact("w", A), fact("new", B)], Store(tmp_path / "file"))
    assert got["w"].path == hub.root / "w"
    assert got["new"].path.read_bytes() == B


@pytest.mark.parametrize("damage", [A[:-1], A[::-1]], ids=["cut", "changed"])
def test_a_damaged_hub_file_is_fetched_again(
    store: Store, hub: PlaceFolder, tmp_path: Path, damage: bytes
) -> None:
    fetch(hub, [fact("w", A)], store)
    (tmp_path / "hub" / "blobs" / "b1").write_bytes(damage)
    assert fetch(hub, [fact("w", A)], store)["w"].path.read_bytes() == A
    assert hub.downloads == ["w"]


def test_a_hub_file_that_stays_damaged_is_never_used_and_its_blob_is_named(
    store: Store, hub: PlaceFolder, tmp_path: Path
) -> None:
    blob = tmp_path / "hub" / "blobs" / "b1"
    blob.write_bytes(A[::-1])
    hub.contents = {"w": A[::-1]}
    with pytest.raises(IntegrityError) as caught:
        fetch(hub, [fact("w", A)], store)
    assert codes(caught) == ["AD613"]
    assert f"Delete {blob}" in str(caught.value)


def test_a_damaged_file_of_a_local_mirror_is_not_to_be_deleted(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(A[::-1])
    mirror = PlaceFolder({}, address="hf://org/name@c1", root=tmp_path)
    with pytest.raises(IntegrityError) as caught:
        fetch(mirror, [fact("w", A)], store)
    assert codes(caught) == ["AD614"]


def test_a_small_hub_file_is_checked_against_its_git_blob_id(
    store: Store, hub: PlaceFolder, tmp_path: Path
) -> None:
    wanted = FileFact("w", len(A), None, git_blob_sha1(hub.root / "w"))
    assert fetch(hub, [wanted], store)["w"].fact.sha256 == sha256_bytes(A)
    (tmp_path / "hub" / "blobs" / "b1").write_bytes(A[::-1])
    hub.contents = {"w": A[::-1]}
    hub.listed = {"w": wanted}
    with pytest.raises(IntegrityError) as caught:
        fetch(hub, [wanted], store)
    assert codes(caught) == ["AD613"]


# Leaving early

DOWNLOADER = """
import sys, threading, time
from pathlib import Path
from support.folders import MemoryFolder, fact
from adapterdock.registry.sources.fetch import fetch
from adapterdock.registry.store.store import Store

mode, calls = sys.argv[2], []

def during(path):
    if path == "quick":
        return
    calls.append(path)
    if len(calls) == 2:
        print("in the middle", flush=True)
    if mode == "hangs":
        time.sleep(60)

class Slow(MemoryFolder):
    def download(self, path, into, on_bytes=None):
        if path == "quick" or mode == "hangs":
            return super().download(path, into, on_bytes)
        with into.open("wb", buffering=0) as stream:
            for n in range(6000):
                stream.write(b"x" * 10)
                try:
                    on_bytes(10)
                except Exception:
                    pass  # a library that retries whatever happens
                if n == 1:
                    during(path)
                time.sleep(0.01)
        return into

contents = {"quick": b"q" * 50, "one": b"x" * 60000, "two": b"x" * 59999}
wanted = [fact(name, data) for name, data in contents.items()]
try:
    fetch(Slow(contents, during=during), wanted, Store(Path(sys.argv[1])), jobs=2)
except KeyboardInterrupt:
    print("left", flush=True)
"""


@pytest.mark.parametrize("mode", ["reports", "hangs"])
def test_ctrl_c_leaves_before_the_download_ends_and_leaves_nothing_behind(
    store: Store, mode: str
) -> None:
    process = run(DOWNLOADER, store.root, mode)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "left\n"
    process.wait(timeout=10)
    assert time.monotonic() - begin < 10  # 0.1 or 0.7; 60 where it waits for the download
    process.communicate()
    assert process.returncode == 0
    assert files(store.root) == objects(sha256_bytes(b"q" * 50))


def test_a_killed_download_leaves_no_object_and_the_next_one_works(store: Store) -> None:
    process = run(DOWNLOADER, store.root, "reports")
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.kill()
    process.communicate()
    assert [entry.size for entry in entries(store)] == [50]
    assert len(list(store.tmp.iterdir())) == 1
    contents = {"one": b"x" * 60000, "two": b"x" * 59999}
    wanted = [fact(name, data) for name, data in contents.items()]
    got = fetch(MemoryFolder(contents), wanted, store)
    assert {name: file.path.read_bytes() for name, file in got.items()} == contents
    collect(store)
    assert list(store.tmp.iterdir()) == []


def test_processes_that_fetch_the_same_at_once_all_get_it(store: Store) -> None:
    code = """
    import sys, time
    from pathlib import Path
    from support.folders import MemoryFolder, fact
    from adapterdock.registry.sources.fetch import fetch
    from adapterdock.registry.store.store import Store
    contents = {f"f{n}": bytes([n]) * 100_000 for n in range(6)}
    while time.time() < float(sys.argv[2]):
        pass
    got = fetch(MemoryFolder(contents), [fact(n, c) for n, c in contents.items()],
                Store(Path(sys.argv[1])), jobs=3)
    print({name: file.path.read_bytes() for name, file in got.items()} == contents)
    """
    at = time.time() + 1.5
    processes = [run(code, store.root, at) for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert out.split() == ["True"], err
    assert files(store.root) == objects(*(sha256_bytes(bytes([n]) * 100_000) for n in range(6)))


# End to end over a real socket


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(A)))
        self.end_headers()
        cut = len(A) // 2 if self.path.startswith("/cut") else len(A)
        body = A[::-1] if self.path.startswith("/other") else A
        self.wfile.write(body[:cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Generator[str]:
    """Serves every path with the bytes of ``A``: /cut half of them, /other others."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


class HttpFolder(MemoryFolder):
    def files(self) -> dict[str, FileFact]:
        return {name: FileFact(name, len(A)) for name in ("whole", "cut", "other")}

    def download(
        self, path: str, into: Path, on_bytes: Callable[[int], None] | None = None
    ) -> Path:
        with urllib.request.urlopen(f"{self.address}/{path}") as answer, into.open("wb") as stream:
            while chunk := answer.read1(1000):  # read1 does not notice a body cut short
                stream.write(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk))
        return into


def test_faults_on_a_real_connection(store: Store, server: str) -> None:
    folder = HttpFolder({}, address=server)
    for name, code in (("cut", "AD611"), ("other", "AD610")):
        with pytest.raises(IntegrityError) as caught:
            fetch(folder, [fact(name, A)], store)
        assert codes(caught) == [code]
        assert files(store.root) == set()
    assert fetch(folder, [fact("whole", A)], store)["whole"].path.read_bytes() == A


def test_labels_and_origins_hold_no_secret(store: Store) -> None:
    # The language refuses such a source; a caller can still make one.
    address = Source("https", "me:pw@host/folder?token=secret")
    fetch(MemoryFolder({"w": A}, address=address), [fact("w", A)], store)
    assert all(b"secret" not in p.read_bytes() for p in store.root.rglob("*") if p.is_file())
