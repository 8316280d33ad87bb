"""A file that is replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.manifests.owner import Owner, made_beside
from adapterdock.registry.files import disk
from adapterdock.registry.files.disk import file_mark, replace_file, write_output


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_file_is_replaced_and_others_can_read_it_unless_it_is_private(
    tmp_path: Path, private: bool, mode: int
) -> None:
    path = tmp_path / "record.json"
    before = os.umask(0o022)
    try:
        for content in (b"old", b"new"):
            replace_file(path, content, private=private)
            assert path.read_bytes() == content
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    replace_file(path, b"old")

    def full(_: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(disk, "sync_file", full)
    with pytest.raises(OSError, match="full"):
        replace_file(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_what_a_killed_writer_left_is_removed_and_not_what_another_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    running = made_beside(path, "new")
    with monkeypatch.context() as before:
        me = Owner.me()
        before.setattr(Owner, "me", classmethod(lambda _: Owner(me.space, 2**22 + 1, 1)))
        killed = made_beside(path, "new")
    for left in (running, killed):
        left.write_bytes(b"half")
    replace_file(path, b"new")
    assert sorted(tmp_path.iterdir()) == sorted([path, running])


def test_a_place_of_the_user_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_output(path, b"new", "Cannot write the page")
    assert path.read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    for wrong in (tmp_path / "none" / "page.html", tmp_path / "folder", Path(), Path("/")):
        with pytest.raises(UsageError) as caught:
            write_output(wrong, b"new", "Cannot write the page")
        assert caught.value.code == "AD909"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder", path]


def test_the_mark_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    marks = [file_mark(path)]
    for content in (b"one", b"two"):
        replace_file(path, content)
        marks.append(file_mark(path))
    assert marks[0] is None and len({*marks}) == 3
    assert file_mark(path) == marks[-1]
