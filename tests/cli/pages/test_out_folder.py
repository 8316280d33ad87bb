"""The folder of a site: replaced page by page, and nobody else's files are touched."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from adapterdock.cli.pages import out_folder
from adapterdock.cli.pages.out_folder import RECORD, Written, write_site
from adapterdock.manifests.findings import usage as codes
from adapterdock.manifests.findings.errors import UsageError
from support.project import files_of

PAGES = {"index.html": b"one", "adapters/tone.html": b"two", "assets/site.css": b"three"}


def test_a_site_is_written_and_only_what_changed_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "new" / "site"
    assert write_site(out, PAGES) == Written(3, 0, 0)
    assert {path: raw for path, raw in files_of(out).items() if path != RECORD} == PAGES
    before = (out / "index.html").stat().st_ino
    assert write_site(out, {**PAGES, "adapters/tone.html": b"2"}) == Written(1, 2, 0)
    assert (out / "index.html").stat().st_ino == before
    assert write_site(out, PAGES) == Written(1, 2, 0)


def test_pages_that_are_no_longer_there_are_removed_with_their_folders(tmp_path: Path) -> None:
    write_site(tmp_path, PAGES)
    assert write_site(tmp_path, {"index.html": b"one"}) == Written(0, 1, 2)
    assert sorted(files_of(tmp_path)) == [RECORD, "index.html"]
    assert not (tmp_path / "adapters").exists()


@pytest.mark.parametrize("place", ["notes.txt", "adapters/own.html", "index.html", ".git/config"])
def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    with pytest.raises(UsageError) as caught:
        write_site(tmp_path, PAGES)
    (finding,) = caught.value.findings
    assert (finding.code, finding.found) == (codes.SITE_OCCUPIED.id, place.partition("/config")[0])
    assert list(files_of(tmp_path).values()) in ([b"mine"], [])


def test_a_file_that_was_put_into_a_site_is_not_lost(tmp_path: Path) -> None:
    write_site(tmp_path, PAGES)
    (tmp_path / "CNAME").write_text("example.org")
    with pytest.raises(UsageError, match="no site wrote"):
        write_site(tmp_path, {"index.html": b"new"})
    assert (tmp_path / "index.html").read_bytes() == b"one"


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_site(tmp_path / "site", PAGES)
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "site" / "adapters").rename(elsewhere)
    (tmp_path / "site" / "adapters").symlink_to(elsewhere)
    with pytest.raises(UsageError):
        write_site(tmp_path / "site", {**PAGES, "adapters/tone.html": b"other"})
    assert (elsewhere / "tone.html").read_bytes() == b"two"


@pytest.mark.parametrize(
    "record",
    [
        *("", "[]", "{}", '{"schema": "other"}'),
        *('{"schema": "adapterdock.site-files/1", "files": ["../x"]}', "[" * 9000),
    ],
)
def test_an_invalid_list_of_files_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / RECORD).write_text(record)
    (tmp_path.parent / "x").write_text("kept")
    with pytest.raises(UsageError, match="invalid"):
        write_site(tmp_path, PAGES)
    assert (tmp_path.parent / "x").exists()


def test_a_run_that_broke_off_leaves_pages_that_the_next_run_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path, {"index.html": b"old", "adapters/gone.html": b"old"})
    put, done = out_folder._put, []  # pyright: ignore[reportPrivateUsage]

    def breaks_off(staged: Path, place: Path, content: bytes) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(place)
        put(staged, place, content)

    monkeypatch.setattr(out_folder, "_put", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        write_site(tmp_path, PAGES)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "adapters" / "gone.html").read_bytes() == b"old"
    monkeypatch.undo()
    write_site(tmp_path, PAGES)
    assert {path: raw for path, raw in files_of(tmp_path).items() if path != RECORD} == PAGES
    assert json.loads((tmp_path / RECORD).read_text())["files"] == sorted(PAGES)


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_SH)
    try:
        with pytest.raises(UsageError, match="Another run"):
            write_site(tmp_path, PAGES)
    finally:
        os.close(number)
    assert write_site(tmp_path, PAGES) == Written(3, 0, 0)


def test_a_file_in_the_place_of_the_folder_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("mine")
    with pytest.raises(UsageError) as caught:
        write_site(tmp_path / "site", PAGES)
    assert caught.value.findings[0].code == codes.SITE_UNWRITTEN.id
    assert (tmp_path / "site").read_text() == "mine"
