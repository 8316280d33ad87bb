"""What was verified is not hashed again, and what was changed always is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, StoreError
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.store import verified
from adapterdock.registry.store.verified import GRANULARITY_NS, Stamp, Verified

LATER_NS = GRANULARITY_NS + 1_000_000_000


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is three seconds later than it is, so that new files count as settled."""
    now = time.time_ns
    monkeypatch.setattr(verified.time, "time_ns", lambda: now() + LATER_NS)


class Memos(Verified):
    """Counts the bytes that were really read."""

    hashed = 0

    def of(self, path: Path, expected: str | None = None) -> str:
        def count(number: int) -> None:
            self.hashed += number

        return self.digest(path, expected=expected, on_bytes=count)


@pytest.fixture
def memos(tmp_path: Path) -> Memos:
    return Memos(tmp_path / "memos")


def again(memos: Memos) -> Memos:
    """The same memos as another process sees them."""
    return Memos(memos.directory)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"one content")
    return path


@pytest.mark.usefixtures("later")
def test_an_unchanged_file_is_read_once_even_by_another_process(memos: Memos, file: Path) -> None:
    assert memos.of(file) == sha256_bytes(b"one content")
    other = again(memos)
    assert other.of(file) == memos.of(file) == sha256_bytes(b"one content")
    assert (memos.hashed, other.hashed) == (11, 0)


@pytest.mark.usefixtures("later")
def test_a_rewrite_of_the_same_size_with_its_old_time_is_noticed(memos: Memos, file: Path) -> None:
    memos.of(file)
    before = file.stat()
    time.sleep(0.02)  # past the kernel's clock tick
    with file.open("r+b") as stream:
        stream.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    same = (before.st_ino, before.st_size, before.st_mtime_ns)
    assert same == (after.st_ino, after.st_size, after.st_mtime_ns)
    assert memos.of(file) == again(memos).of(file) == sha256_bytes(b"two content")


@pytest.mark.usefixtures("later")
def test_a_file_replaced_by_another_with_the_same_times_is_noticed(
    memos: Memos, file: Path, tmp_path: Path
) -> None:
    memos.of(file)
    other = tmp_path / "other"
    other.write_bytes(b"two content")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert memos.of(file) == again(memos).of(file) == sha256_bytes(b"two content")


def test_a_file_changed_just_before_it_was_read_is_not_remembered(memos: Memos, file: Path) -> None:
    memos.of(file)
    memos.of(file)
    assert memos.hashed == 22
    assert again(memos).of(file) == sha256_bytes(b"one content")


def test_a_file_from_the_future_is_not_remembered(memos: Memos, file: Path) -> None:
    os.utime(file, (time.time() + 3600, time.time() + 3600))
    memos.of(file)
    memos.of(file)
    assert memos.hashed == 22


def test_files_that_the_store_wrote_are_remembered_at_once(memos: Memos, file: Path) -> None:
    memos.record(file, sha256_bytes(b"one content"))
    other = again(memos)
    assert other.of(file) == sha256_bytes(b"one content")
    assert other.hashed == 0


@pytest.mark.usefixtures("later")
def test_a_memo_is_of_the_file_and_not_of_the_link_to_it(
    memos: Memos, file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    memos.of(link)
    memos.of(file)
    assert memos.hashed == 11
    other = tmp_path / "other"
    other.write_bytes(b"third")
    link.unlink()
    link.symlink_to(other)
    assert memos.of(link) == sha256_bytes(b"third")


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" * len(data),
        lambda data: data.replace(sha256_bytes(b"one content").encode(), b"sha256:" + b"0" * 64),
        lambda data: data + b"x",
    ],
    ids=["empty", "cut", "garbage", "other digest", "longer"],
)
def test_a_damaged_memo_is_ignored_and_replaced(memos: Memos, file: Path, damage) -> None:
    memos.of(file)
    (memo,) = [path for path in memos.directory.glob("*/*") if path.is_file()]
    memo.write_bytes(damage(memo.read_bytes()))
    other = again(memos)
    assert other.of(file) == sha256_bytes(b"one content")
    assert other.hashed == 11
    assert again(memos).of(file) == sha256_bytes(b"one content")


@pytest.mark.usefixtures("later")
def test_a_wrong_memo_is_ignored(memos: Memos, file: Path) -> None:
    memos.record(file, sha256_bytes(b"a lie"))
    assert memos.of(file, sha256_bytes(b"one content")) == sha256_bytes(b"one content")
    assert memos.hashed == 11


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("place", ["file", "file/x"])
def test_without_a_place_for_memos_digests_are_right(
    tmp_path: Path, file: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    memos = Memos(tmp_path / place)
    assert memos.of(file) == memos.of(file) == sha256_bytes(b"one content")
    assert memos.hashed == 11  # remembered in the process
    memos.sweep()


def test_a_file_that_changes_while_it_is_read_has_no_digest(memos: Memos, file: Path) -> None:
    def change(_count: int) -> None:
        with file.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(IntegrityError) as caught:
        memos.digest(file, on_bytes=change)
    assert caught.value.code == "AD615"


def test_an_unreadable_file_is_a_finding_and_never_blocks(memos: Memos, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError) as caught:
            memos.digest(path)
        assert caught.value.code == "AD606"
        assert str(path) in str(caught.value)


@pytest.mark.usefixtures("later")
def test_memos_of_missing_files_are_removed(memos: Memos, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x")
    memos.of(file)
    memos.of(other)
    other.unlink()
    left_behind = next(memos.directory.iterdir()) / ".new-dead"
    left_behind.touch()
    os.utime(left_behind, (0, 0))
    memos.sweep()
    assert len([path for path in memos.directory.glob("*/*") if path.is_file()]) == 1
    fresh = again(memos)
    fresh.of(file)
    assert fresh.hashed == 0


def test_a_stamp_is_settled_only_after_both_of_its_times() -> None:
    now = 10 * GRANULARITY_NS
    assert Stamp(1, 1, 1, 0, 0).settled(now)
    assert not Stamp(1, 1, 1, now - 1, 0).settled(now)
    assert not Stamp(1, 1, 1, 0, now - 1).settled(now)
