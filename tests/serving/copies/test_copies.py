"""Private copies: whole, shared by processes, held while they are served, and removed after."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, StoreError
from adapterdock.registry.files.digests import folder_digest, sha256_bytes
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.sources.fetch import Fetched
from adapterdock.registry.store.maintenance import collect
from adapterdock.registry.store.store import Store
from adapterdock.serving.copies import private_file
from adapterdock.serving.copies.copies import SWITCHES, Copies


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


DIGEST = sha256_bytes(b"what it is made from")


def files(folder: Path, text: str) -> tuple[str, dict[str, Fetched]]:
    """An adapter of two files, and its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Fetched] = {}
    for name in ("adapter_config.json", "weights/one.safetensors"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name} {text}")
        content = path.read_bytes()
        found[name] = Fetched(FileFact(name, len(content), sha256_bytes(content)), path)
    return folder_digest(one.fact for one in found.values()), found


def copied(copies: Copies, folder: Path, text: str) -> tuple[str, Path]:
    digest, found = files(folder / text, text)
    return digest, copies.copy(digest, found)


def made(copies: Copies) -> set[str]:
    return {f"sha256:{path.name}" for path in (copies.root / "adapters").glob("*")}


def test_a_copy_is_no_link_and_read_only(store: Store, tmp_path: Path) -> None:
    copies = Copies(store)
    digest, folder = copied(copies, tmp_path, "a")
    assert folder.name == digest.removeprefix("sha256:")
    for path in folder.rglob("*"):
        assert not path.is_symlink()
        wanted = 0o555 if path.is_dir() else 0o444
        assert stat.S_IMODE(path.stat().st_mode) == wanted
        assert path.is_dir() or path.stat().st_nlink == 1
    (tmp_path / "a" / "adapter_config.json").write_text("other")
    assert copies.intact(digest)
    assert (folder / "adapter_config.json").read_text() == "adapter_config.json a"


def test_a_source_that_changes_while_it_is_copied_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    copies = Copies(store)
    digest, found = files(tmp_path / "a", "a")
    (tmp_path / "a" / "weights" / "one.safetensors").write_text("other content is longer")
    with pytest.raises(IntegrityError) as caught:
        copies.copy(digest, found)
    assert caught.value.code == "AD614"
    assert made(copies) == set() and list((copies.root / "tmp").iterdir()) == []


def test_a_file_system_that_shares_blocks_is_used(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FICLONE does: the whole content, in one call. What it cloned is hashed."""
    cloned: list[int] = []

    def clone(source: int, target: int) -> bool:
        cloned.append(os.write(target, os.pread(source, 1 << 20, 0)))
        os.lseek(target, 0, os.SEEK_SET)
        return True

    monkeypatch.setattr(private_file, "clone", clone)
    copies = Copies(store)
    digest, _ = copied(copies, tmp_path, "a")
    assert len(cloned) == 2 and copies.intact(digest)
    other, found = files(tmp_path / "b", "b")
    (tmp_path / "b" / "adapter_config.json").write_text("changed")
    with pytest.raises(IntegrityError):
        copies.copy(other, found)


@pytest.mark.parametrize("harm", ["content", "more", "less", "link"])
def test_a_copy_that_was_changed_is_noticed_and_made_again(
    store: Store, tmp_path: Path, harm: str
) -> None:
    copies = Copies(store)
    digest, folder = copied(copies, tmp_path, "a")
    file = folder / "adapter_config.json"
    folder.chmod(0o755)
    if harm == "content":
        file.chmod(0o644)
        file.write_text("adapter_config.json b")
    elif harm == "more":
        (folder / "more").write_text("")
    else:
        file.unlink()
        if harm == "link":
            file.symlink_to(tmp_path / "a" / "adapter_config.json")
    assert not copies.intact(digest)
    assert copied(copies, tmp_path, "a") == (digest, folder)
    assert copies.intact(digest)


def test_gc_of_the_cache_leaves_copies_alone(store: Store, tmp_path: Path) -> None:
    copies = Copies(store)
    digest, _ = copied(copies, tmp_path, "a")
    collect(store, 0, grace=0.0)
    assert copies.intact(digest)


# -- how long copies stay ----------------------------------------------------------------------


def test_a_copy_stays_for_some_switches_after_it_was_served(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, grace=0.0)
    first, _ = copied(copies, tmp_path, "first")
    copies.serve([first])
    other, _ = copied(copies, tmp_path, "other")
    for _ in range(SWITCHES):
        copies.serve([other])
        assert first in made(copies)
    copies.serve([other])
    assert made(copies) == {other}


def test_a_copy_stays_for_the_grace(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, grace=3600)
    first, folder = copied(copies, tmp_path, "first")
    copies.serve([first])
    os.utime(folder, (0, 0))  # it was served for a long time
    for _ in range(3 * SWITCHES):
        copies.serve([])
    assert made(copies) == {first}


def test_a_copy_that_is_held_is_never_moved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: an engine may read it then."""
    copied(Copies(store), tmp_path, "a")
    moved: list[str] = []

    def discard(_: Copies, folder: Path, digest: str) -> None:
        moved.append(digest)

    monkeypatch.setattr(Copies, "_discard", discard)
    Copies(store, grace=0.0).serve([])
    assert moved == []


def test_a_copy_that_is_served_again_is_not_removed(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, grace=0.0)
    first, _ = copied(copies, tmp_path, "first")
    copies.serve([first])
    copies.serve([])
    copied(copies, tmp_path, "first")
    for _ in range(3 * SWITCHES):
        copies.serve([first])
    assert copies.intact(first)


OTHER_PROCESS = """
import sys
from pathlib import Path
from adapterdock.registry.store.store import Store
from adapterdock.serving.copies.copies import SWITCHES, Copies
copies = Copies(Store(Path(sys.argv[1])), grace=0.0)
for _ in range(3 * SWITCHES):
    copies.serve([])
print(len(list((copies.root / "adapters").iterdir())))
"""


def other_process(store: Store) -> int:
    """Another process serves nothing, and removes what nobody serves; the copies that are left."""
    said = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(store.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(said.stdout)


def test_another_process_leaves_what_this_one_serves(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, grace=0.0)
    digest, _ = copied(copies, tmp_path, "a")
    assert other_process(store) == 1 and copies.intact(digest)


def test_what_an_ended_process_served_is_removed(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, grace=0.0)
    copied(copies, tmp_path, "a")
    for mark in (copies.root / "holds").iterdir():
        mark.unlink()  # as of a process that ended
    assert other_process(store) == 0


def test_a_copy_that_is_used_while_it_is_removed_comes_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's hold is written after the first look of the remover, before its second."""
    user = Copies(store, grace=0.0)
    digest, folder = copied(user, tmp_path, "a")
    hold = next((user.root / "holds").iterdir())
    text = hold.read_text()
    hold.unlink()
    remover = Copies.__new__(Copies)
    looks: list[int] = []
    held = Copies._held  # pyright: ignore[reportPrivateUsage]

    def looking(self: Copies) -> frozenset[str]:
        looks.append(1)
        if len(looks) == 2:
            hold.write_text(text)
        return held(self)

    monkeypatch.setattr(Copies, "_held", looking)
    remover.__init__(store, grace=0.0)
    assert len(looks) == 2
    assert user.intact(digest) and folder.is_dir()


# -- disks that refuse -------------------------------------------------------------------------


def test_a_full_disk_is_a_finding_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies(store)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("adapterdock.serving.copies.copies.copy_verified", full)
    with pytest.raises(StoreError) as caught:
        copied(copies, tmp_path, "a")
    assert caught.value.code == "AD602"
    assert made(copies) == set() and list((copies.root / "tmp").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    store: Store, tmp_path: Path
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    copies = Copies(store, blocker / "inside")
    digest, folder = copied(copies, tmp_path, "a")
    assert copies.intact(digest) and not folder.is_relative_to(tmp_path)


def test_a_folder_may_be_chosen(store: Store, tmp_path: Path) -> None:
    copies = Copies(store, tmp_path / "copies")
    _, folder = copied(copies, tmp_path, "a")
    assert folder.is_relative_to(tmp_path / "copies")


# -- made here ---------------------------------------------------------------------------------


def test_what_is_made_is_made_once(store: Store) -> None:
    calls: list[Path] = []

    def build(new: Path) -> list[FileFact]:
        calls.append(new)
        (new / "a").write_text("a")
        return [FileFact("a", 1, sha256_bytes(b"a"))]

    digest = sha256_bytes(b"recipe")
    folder = Copies(store).make(digest, build)
    assert Copies(store).make(digest, build) == folder and len(calls) == 1
    record = folder.parent.parent / "records" / folder.name
    record.write_text(json.dumps({"a": [1, sha256_bytes(b"b")]}))
    assert Copies(store).make(digest, build) == folder and len(calls) == 2


def test_a_sound_copy_that_another_process_made_meanwhile_stays_in_its_place(
    store: Store,
) -> None:
    """A server reads from it, and would miss files while it is replaced."""
    fact = FileFact("a", 5, sha256_bytes(b"hello"))
    others: list[int] = []

    def build(new: Path) -> list[FileFact]:
        (new / "a").write_bytes(b"hello")
        return [fact]

    def build_second(new: Path) -> list[FileFact]:
        others.append(Copies(store).make(DIGEST, build).stat().st_ino)
        return build(new)

    assert Copies(store).make(DIGEST, build_second).stat().st_ino == others[0]


def test_threads_and_processes_that_copy_the_same_share_it(store: Store, tmp_path: Path) -> None:
    digest, found = files(tmp_path / "a", "a")
    folders: list[Path] = []
    every = [Copies(store) for _ in range(6)]

    def act(copies: Copies) -> None:
        folders.append(copies.copy(digest, found))

    threads = [threading.Thread(target=act, args=(copies,)) for copies in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 6 and len({*folders}) == 1
    assert all(copies.intact(digest) for copies in every)
