"""The store keeps what is right, once, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, StoreError
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.store.link_trees import materialise
from adapterdock.registry.store.maintenance import collect, entries, size, verify
from adapterdock.registry.store.store import Store
from support.cache import files, objects, put, run

HELLO = b"hello world" * 1000
DIGEST = sha256_bytes(HELLO)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@contextmanager
def read_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """``place`` is a read-only file system: a real mount where that is permitted, else every
    change is refused the way one refuses it."""
    mounted = subprocess.run(["mount", "--bind", place, place], capture_output=True)
    if mounted.returncode == 0:
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
            yield
        finally:
            subprocess.run(["umount", place], check=True)
        return

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def act(self: Path, *arguments: object, **options: object) -> object:
            if self.is_relative_to(place):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
            return real(self, *arguments, **options)

        return act

    with monkeypatch.context() as patch:
        for name in ("mkdir", "replace", "rename", "symlink_to", "hardlink_to", "unlink"):
            patch.setattr(Path, name, refusing(getattr(Path, name)))
        yield


def test_what_is_published_is_found_read_only_under_its_digest(store: Store) -> None:
    put(store, HELLO)
    path = store.find(DIGEST, len(HELLO))
    assert path is not None
    assert path == store.object_path(DIGEST)
    assert path.read_bytes() == HELLO
    assert path.stat().st_mode & 0o777 & ~0o444 == 0
    assert files(store.root) == objects(DIGEST)
    assert store.find(sha256_bytes(b"absent")) is None


def test_a_second_publication_keeps_the_first_file(store: Store) -> None:
    put(store, HELLO)
    inode = store.object_path(DIGEST).stat().st_ino
    put(store, HELLO)
    assert store.object_path(DIGEST).stat().st_ino == inode


def test_a_file_whose_digest_is_not_known_is_named_by_its_content(store: Store) -> None:
    with store.temporary() as path:
        path.write_bytes(HELLO)
        assert store.publish(path, None) == store.object_path(DIGEST)


@pytest.mark.parametrize(
    ("content", "size", "code"),
    [(HELLO[:-1], len(HELLO), "AD611"), (b"x" * len(HELLO), len(HELLO), "AD610")],
)
def test_a_wrong_file_is_refused_and_leaves_nothing(
    store: Store, content: bytes, size: int, code: str
) -> None:
    with pytest.raises(IntegrityError) as caught, store.temporary() as path:
        path.write_bytes(content)
        store.publish(path, DIGEST, size, origin="s3://b/f")
    assert caught.value.code == code
    assert "s3://b/f" in str(caught.value)
    assert files(store.root) == set()


def test_a_temporary_file_is_removed_however_its_block_ends(store: Store) -> None:
    for error in (ValueError, KeyboardInterrupt, OSError):
        with pytest.raises(error), store.temporary() as path:
            (path / "nested").mkdir(parents=True)
            (path / "nested" / "file").write_bytes(HELLO)
            (path / "nested").chmod(0o555)
            raise error
    assert list(store.tmp.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", HELLO[:-1], b"x" * len(HELLO)])
def test_a_damaged_object_is_never_found_and_the_next_publication_repairs_it(
    store: Store, damage: bytes
) -> None:
    put(store, HELLO)
    path = store.object_path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(damage)
    assert store.find(DIGEST) is None
    put(store, HELLO)
    assert store.find(DIGEST) == path
    assert path.read_bytes() == HELLO


def test_an_object_of_another_size_is_not_even_read(store: Store) -> None:
    put(store, HELLO)
    (store.root / "verified").rename(store.root / "gone")
    assert Store(store.root).find(DIGEST, 5, lambda _count: pytest.fail("read")) is None


def test_a_link_in_place_of_an_object_is_not_followed(store: Store, tmp_path: Path) -> None:
    put(store, HELLO)
    (tmp_path / "elsewhere").write_bytes(HELLO)
    store.object_path(DIGEST).unlink()
    store.object_path(DIGEST).symlink_to(tmp_path / "elsewhere")
    assert store.find(DIGEST) is None


def test_a_found_object_is_hashed_once(store: Store) -> None:
    put(store, HELLO)
    hashed: list[int] = []
    assert store.find(DIGEST, on_bytes=hashed.append)
    assert Store(store.root).find(DIGEST, on_bytes=hashed.append)
    assert hashed == []
    (memos,) = store.root.glob("verified")
    memos.rename(store.root / "gone")
    assert Store(store.root).find(DIGEST, on_bytes=hashed.append)
    assert sum(hashed) == len(HELLO)


def test_a_malformed_digest_is_refused_everywhere(store: Store) -> None:
    for act in (store.find, store.object_path, lambda d: store.hold([d]).__enter__()):
        with pytest.raises(IntegrityError) as caught:
            act("../../etc/passwd")
        assert caught.value.code == "AD621"


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path / "a"))
    assert Store.default().root == tmp_path / "a"
    monkeypatch.setenv("ADAPTERDOCK_CACHE", "~/b")
    assert Store.default().root == Path.home() / "b"
    monkeypatch.setenv("ADAPTERDOCK_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert Store.default().root == tmp_path / "x" / "adapterdock"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert Store.default().root == Path.home() / ".cache" / "adapterdock"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(StoreError) as caught:
        Store.default()
    assert caught.value.code == "AD607"


def test_making_and_asking_a_store_writes_nothing(store: Store) -> None:
    assert store.find(DIGEST) is None
    assert entries(store) == []
    assert size(store) == 0
    assert verify(store) == []
    assert collect(store, 0).digests == ()
    assert not store.root.exists()


# What the system refuses


def test_a_file_in_the_caches_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "cache"):
        store = Store(root)
        assert store.find(DIGEST) is None
        with pytest.raises(StoreError) as caught:
            put(store, HELLO)
        assert caught.value.code == "AD601"
        assert str(tmp_path / "file") in str(caught.value)
        assert "ADAPTERDOCK_CACHE" in str(caught.value)


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        put(Store(tmp_path / ("x" * 300)), HELLO)
    assert caught.value.code == "AD605"


def test_a_read_only_cache_is_read_verified_and_says_why_it_cannot_grow(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, HELLO)
    tree = materialise(store, {"made/before": DIGEST})
    with read_only(store.root, monkeypatch):
        store = Store(store.root)
        path = store.find(DIGEST)
        assert path is not None
        assert path.read_bytes() == HELLO
        with store.hold([DIGEST]):
            assert materialise(store, {"made/before": DIGEST}) == tree
        assert [entry.digest for entry in entries(store)] == [DIGEST]
        assert verify(store) == []
        with pytest.raises(StoreError) as caught:
            put(store, b"more")
        assert caught.value.code == "AD603"
        assert "ADAPTERDOCK_CACHE" in str(caught.value)
        with pytest.raises(StoreError) as caught:
            collect(store, 0, grace=0)
        assert caught.value.code == "AD603"
    assert store.find(DIGEST)


def test_a_read_only_cache_gives_new_folders_of_links_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, HELLO)
    with read_only(store.root, monkeypatch):
        tree = materialise(store, {"new/name": DIGEST})
        assert not tree.is_relative_to(store.root)
        assert (tree / "new" / "name").read_bytes() == HELLO


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, "AD604"),
        (errno.EPERM, "AD604"),
        (errno.ENOSPC, "AD602"),
        (errno.EDQUOT, "AD602"),
        (errno.EIO, "AD606"),
    ],
)
def test_an_error_of_the_system_is_a_finding(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError) as caught:
        put(store, HELLO)
    assert caught.value.code == code
    assert isinstance(caught.value.__cause__, OSError)
    assert files(store.root) == set()


def test_a_cache_that_others_own_is_read_by_who_may() -> None:
    # Not under pytest's own folder, which is closed to others. Root may do everything, so the
    # reader is somebody else; where this is not run by root, nobody may write instead.
    code = """
    import os, sys
    from pathlib import Path
    from adapterdock.registry.store.link_trees import materialise
    from adapterdock.registry.store.store import Store
    from adapterdock.manifests.errors import StoreError
    if os.getuid() == 0:
        os.setgid(65534); os.setuid(65534)
    store = Store(Path(sys.argv[1]))
    print(store.find(sys.argv[2]))
    tree = materialise(store, {"a": sys.argv[2]})
    print(tree, (tree / "a").stat().st_size)
    try:
        with store.temporary() as path:
            path.touch()
    except StoreError as error:
        print(error.code)
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "cache")
        put(store, HELLO)
        Path(folder).chmod(0o755)
        for place in (store.root, *store.root.rglob("*/")):
            place.chmod(0o555 if place.is_dir() else 0o444)
        process = run(code, store.root, DIGEST)
        out, err = process.communicate(timeout=60)
        for place in (store.root, *store.root.rglob("*/")):
            place.chmod(0o755)
        assert process.returncode == 0, err
        path, tree, size, refusal = out.split()
        assert path == str(store.object_path(DIGEST))
        assert (size, refusal) == (str(len(HELLO)), "AD604")
        assert not Path(tree).exists(), "it goes with its process"


# Several processes


def test_processes_that_publish_the_same_file_at_once_all_succeed(store: Store) -> None:
    code = """
    import sys, time
    from pathlib import Path
    from adapterdock.registry.store.link_trees import materialise
    from adapterdock.registry.store.store import Store
    store = Store(Path(sys.argv[1]))
    with store.temporary() as path:
        path.write_bytes(b"hello world" * 1000)
        while time.time() < float(sys.argv[3]):
            pass
        print(store.publish(path, sys.argv[2], 11000))
    tree = materialise(store, {"a/b": sys.argv[2]})
    print((tree / "a/b").read_bytes() == b"hello world" * 1000)
    """
    at = time.time() + 1.5
    processes = [run(code, store.root, DIGEST, at) for _ in range(5)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert out.split() == [str(store.object_path(DIGEST)), "True"], err
    (tree,) = store.trees.iterdir()
    assert files(store.root) == objects(DIGEST) | {f"trees/{tree.name}/a/b"}


def test_a_killed_writer_leaves_no_object_and_gc_removes_its_remains(store: Store) -> None:
    code = """
    import sys, time
    from pathlib import Path
    from adapterdock.registry.store.store import Store
    store = Store(Path(sys.argv[1]))
    with store.temporary() as path:
        path.write_bytes(b"half")
        print("written", flush=True)
        time.sleep(60)
    """
    process = run(code, store.root)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    collect(store)
    assert len(list(store.tmp.iterdir())) == 1, "a living process keeps its own"
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while list(store.tmp.iterdir()) and time.monotonic() < deadline:
        collect(store)  # before it is reaped: a zombie writes nothing either
    assert list(store.tmp.iterdir()) == []
    process.communicate()
    assert entries(store) == []
