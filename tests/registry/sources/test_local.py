"""Local folders: links, rights, and files that change under the reader."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.findings.finding import Finding, Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.sources import opened as opened_module
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source

HERE = Where(file="adapters.yaml", line=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "manifests" / "tone"
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_bytes(b"{}")
    return place


def opened(folder: Path, text: str = "./tone", **options: object) -> Folder:
    return open_source(
        Source.parse(text),
        directory=folder.parent,
        where=HERE,
        **options,  # type: ignore[arg-type]
    )


def code_of(folder: Path, text: str = "./tone", **options: object) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder, text, **options).files()
    assert caught.value.findings[0].where == HERE
    return caught.value.code


def test_a_relative_source_starts_from_the_manifest(folder: Path, tmp_path: Path) -> None:
    assert opened(folder).local("adapter_config.json") == folder / "adapter_config.json"
    assert opened(folder, "../manifests/tone").read("adapter_config.json") == b"{}"
    assert opened(folder, str(folder)).read("adapter_config.json") == b"{}"


def test_offline_a_local_folder_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERDOCK_OFFLINE", "1")
    assert opened(folder).read("adapter_config.json") == b"{}"


def test_a_missing_folder_and_a_file_are_refused_at_once(folder: Path) -> None:
    with pytest.raises(SourceError) as caught:
        opened(folder, "./tune")
    assert caught.value.code == "AD201"
    (finding,) = caught.value.findings
    assert "manifest's folder" in str(finding.hint)
    with pytest.raises(SourceError) as caught:  # no line of a manifest: a call or an option
        open_source(Source.parse("./tune"), directory=folder.parent, where=Where(file="--model"))
    assert "current folder" in str(caught.value.findings[0].hint)
    with pytest.raises(SourceError) as caught:
        opened(folder, "./tone/adapter_config.json")
    assert caught.value.code == "AD202"
    assert caught.value.findings[0].expected == "its folder: ./tone"


def test_hidden_files_and_folders_are_skipped(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    assert list(opened(folder).files()) == ["adapter_config.json"]


def test_folders_inside_are_listed_with_forward_slashes(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "w.bin").write_bytes(b"123")
    assert opened(folder).files()["a/b/w.bin"].size == 3
    assert opened(folder).files()["a/b/w.bin"].version is None


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real" / "w.bin").write_bytes(b"123")
    (folder / "w.bin").symlink_to("real/w.bin")
    (folder / "again").symlink_to("real")
    files = opened(folder).files()
    assert set(files) == {"adapter_config.json", "again/w.bin", "real/w.bin", "w.bin"}
    assert opened(folder).read("again/w.bin") == b"123"


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder.parent / "current").symlink_to("tone")
    assert opened(folder, "./current").read("adapter_config.json") == b"{}"


@pytest.mark.parametrize("target", ["../secret.bin", "/etc/passwd", "../../elsewhere"])
def test_a_link_that_leads_out_is_refused(folder: Path, target: str) -> None:
    (folder.parent / "secret.bin").write_bytes(b"secret")
    (folder.parent.parent / "elsewhere").mkdir()
    (folder / "w.bin").symlink_to(target)
    assert code_of(folder) == "AD203"


def test_a_link_to_a_folder_with_a_longer_name_leads_out_as_well(folder: Path) -> None:
    (folder.parent / "tone-other").mkdir()
    (folder / "other").symlink_to("../tone-other")
    assert code_of(folder) == "AD203"


def test_a_file_swapped_for_a_link_after_listing_is_not_read(folder: Path) -> None:
    (folder.parent / "secret.bin").write_bytes(b"no")
    there = opened(folder)
    there.files()
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to("../secret.bin")
    with pytest.raises(SourceError) as caught:
        there.read("adapter_config.json")
    assert caught.value.code == "AD228"


@pytest.mark.parametrize(("name", "target"), [("gone", "nowhere"), ("loop", "loop")])
def test_a_link_that_leads_nowhere_is_unreadable(folder: Path, name: str, target: str) -> None:
    (folder / name).symlink_to(target)
    assert code_of(folder) == "AD204"


@pytest.mark.parametrize("name", ["back\\slash.txt", "bell\x07.txt", "C:\\notes.txt"])
def test_an_unrelated_file_with_an_odd_name_is_skipped(folder: Path, name: str) -> None:
    before = dict(opened(folder).files())
    (folder / name).write_bytes(b"notes")
    assert opened(folder).files() == before


@pytest.mark.parametrize("name", ["a\\..\\..\\evil.txt", "a\\\\evil.txt"])
def test_a_name_that_leads_out_on_another_system_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"evil")
    assert code_of(folder) == "AD203"


def test_a_cycle_of_folders_is_refused(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to("..")
    assert code_of(folder) == "AD203"


def test_a_pipe_is_refused_and_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "adapter_model.safetensors")
    assert code_of(folder) == "AD204"


def test_a_file_without_read_permission_is_reported(folder: Path) -> None:
    (folder / "w.bin").write_bytes(b"x")
    (folder / "w.bin").chmod(0)
    there = opened(folder)
    there.files()
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(SourceError) as caught:
            there.read("w.bin")
    finally:
        os.seteuid(user)
    assert caught.value.code == "AD204"
    assert "Permission denied" in (caught.value.findings[0].found or "")


def test_a_file_that_changes_between_listing_and_reading_is_an_error(folder: Path) -> None:
    there = opened(folder)
    there.files()
    (folder / "adapter_config.json").write_bytes(b"[]")
    os.utime(folder / "adapter_config.json", ns=(1, 1))
    with pytest.raises(SourceError) as caught:
        there.read("adapter_config.json")
    assert caught.value.code == "AD228"
    (folder / "adapter_config.json").unlink()
    with pytest.raises(SourceError) as caught:
        there.read("adapter_config.json")
    assert caught.value.code == "AD228"


def test_a_missing_locked_file_is_reported(folder: Path) -> None:
    pins = opened(folder).files()
    (folder / "adapter_config.json").unlink()
    assert code_of(folder, files=pins) == "AD229"


def test_a_download_stays_where_it_is_and_transfers_nothing(folder: Path, tmp_path: Path) -> None:
    there = opened(folder)
    assert there.download("adapter_config.json", tmp_path / "x") == folder / "adapter_config.json"
    assert there.bytes_read == 0 and not (tmp_path / "x").exists()


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_module, "FOLDER_FILES", 20)
    for number in range(20):
        (folder / str(number)).touch()
    assert code_of(folder) == "AD205"


def test_storage_options_for_a_local_folder_are_refused(folder: Path) -> None:
    assert code_of(folder, storage_options={"anon": True}) == "AD232"


def locked_config(folder: Path, locked: bytes, now: bytes) -> Finding:
    """The finding on a config that was locked with other bytes than it has now."""
    path = folder / "adapter_config.json"
    path.write_bytes(now)
    pin = FileFact(path.name, len(locked), sha256=f"sha256:{hashlib.sha256(locked).hexdigest()}")
    with pytest.raises(SourceError) as caught:
        opened(folder, files={path.name: pin}).files()
    (finding,) = caught.value.findings
    assert finding.code == "AD228"
    return finding


@pytest.mark.parametrize(
    ("now", "message", "hint"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 2\n",
            "is a Git LFS pointer",
            "`git lfs pull`",
        ),
        (b"{\r\n}\r\n", "has other line ends", "`adapter_config.json -text`"),
        (b'{\r\n "r": 8}\r\n', "has changed since it was locked", "restore the file"),
    ],
)
def test_a_changed_file_is_told_from_what_git_did_with_it(
    folder: Path, now: bytes, message: str, hint: str
) -> None:
    finding = locked_config(folder, b"{\n}\n", now)
    assert message in finding.message
    assert hint in str(finding.hint) and "bucket" not in str(finding.hint)
