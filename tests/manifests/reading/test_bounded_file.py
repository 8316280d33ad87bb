"""Files that somebody else wrote are read up to a limit, and in limited time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.bounds import LOCK_BYTES, MANIFEST_BYTES
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.lockfile import read_lock
from adapterdock.manifests.manifest import read_manifest
from adapterdock.manifests.reading import bounded_file
from adapterdock.manifests.reading.bounded_file import read_at_most

MANIFEST = b"version: 1\nbase: {model: ./base}\n"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "PIPE_SECONDS", 0.3)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "adapters.yaml")
    return tmp_path / "adapters.yaml"


def write_into(pipe: Path, *pieces: bytes) -> threading.Thread:
    def write() -> None:
        with pipe.open("wb", buffering=0) as stream:
            for piece in pieces:
                stream.write(piece)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def code_of(caught: pytest.ExceptionInfo[AdapterdockError]) -> str:
    return caught.value.findings[0].code


def test_one_byte_more_than_the_limit_shows_that_a_file_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for size, seen in ((0, 0), (9, 9), (10, 10), (11, 11), (1000, 11)):
        file.write_bytes(b"x" * size)
        assert len(read_at_most(file, 10)) == seen


def test_a_manifest_is_read_from_a_pipe(pipe: Path) -> None:
    """As a shell's ``<(command)`` gives one, in as many pieces as it comes."""
    thread = write_into(pipe, MANIFEST[:7], MANIFEST[7:])
    assert read_manifest(pipe).manifest.base is not None
    thread.join(5)


def test_a_pipe_without_a_writer_is_an_error(pipe: Path, hasty: None) -> None:
    with pytest.raises(AdapterdockError) as caught:
        read_manifest(pipe)
    assert code_of(caught) == "AD101"
    assert "pipe" in str(caught.value)


def test_a_policy_that_is_a_silent_pipe_is_an_error(
    pipe: Path, tmp_path: Path, hasty: None
) -> None:
    manifest = tmp_path / "plain.yaml"
    manifest.write_bytes(MANIFEST)
    report = adapterdock.validate(manifest, policy=pipe)
    assert not report.ok and any("pipe" in finding.message for finding in report.findings)


def test_an_endless_pipe_is_read_up_to_the_limit(pipe: Path) -> None:
    write_into(pipe, b"#" * (MANIFEST_BYTES + 5))
    assert len(read_at_most(pipe, 1000)) == 1001


@pytest.mark.parametrize("what", ["pipe", "device", "link to a device"])
def test_a_lock_that_is_not_a_regular_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    lock = tmp_path / "adapters.lock"
    if what == "pipe":
        os.mkfifo(lock)
    elif what == "device":
        lock = Path("/dev/zero")
    else:
        lock.symlink_to("/dev/zero")
    with pytest.raises(AdapterdockError) as caught:
        read_lock(lock)
    assert code_of(caught) == "AD501"


def test_a_lock_of_gigabytes_is_refused_after_its_limit(tmp_path: Path) -> None:
    lock = tmp_path / "adapters.lock"
    with lock.open("wb") as stream:
        stream.truncate(6 << 30)  # takes no space
    with pytest.raises(AdapterdockError) as caught:
        read_lock(lock)
    assert str(LOCK_BYTES >> 20) in str(caught.value)
