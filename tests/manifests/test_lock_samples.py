"""The samples beside a lock: no lock without its samples, and what is said if they are gone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests import lock_samples, lockfile, owner
from adapterdock.manifests.findings.errors import LockError
from adapterdock.manifests.lock_samples import render_tables, samples_digest, samples_path
from adapterdock.manifests.lockfile import (
    Lock,
    LockedBase,
    LockedFile,
    is_written,
    read_lock,
    render_lock,
    without_samples,
    write_lock,
)
from support.killed import killed_at_every_line


def lock(number: int, samples: str | None = "samples/1:table") -> Lock:
    return Lock(
        version=1,
        generator="adapterdock 0.1.0",
        inputs=f"sha256:{number:064x}",
        base=LockedBase(
            declared="./base",
            source="./base",
            files={"model.safetensors": LockedFile(size=number)},
            samples=None if samples is None else f"{samples}{number}",
        ),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def test_the_samples_are_beside_the_lock_which_has_their_digest(path: Path) -> None:
    write_lock(lock(1), path)
    text = path.read_text()
    assert "table" not in text
    assert f"  samples: {samples_digest('samples/1:table1')}\n" in text
    assert samples_path(path).name == "a.lock.samples"
    assert samples_path(path).read_text().splitlines()[1:] == ["samples/1:table1"]
    assert read_lock(path) == lock(1)
    assert is_written(lock(1), path)


def test_a_lock_of_an_earlier_release_is_read_and_is_not_in_today_s_form(path: Path) -> None:
    path.write_text(render_lock(lock(1)))
    assert read_lock(path) == lock(1)
    assert not is_written(lock(1), path)
    write_lock(lock(1), path)
    assert is_written(lock(1), path)
    assert read_lock(path) == lock(1)


def test_a_lock_that_was_copied_without_its_samples_is_refused(path: Path) -> None:
    write_lock(lock(1), path)
    samples_path(path).unlink()
    with pytest.raises(LockError) as caught:
        read_lock(path)
    finding = caught.value.findings[0]
    assert (finding.code, finding.where.file) == ("AD517", f"{path}.samples")
    assert "missing" in finding.message
    assert "Copy" in str(finding.hint) and "adapterdock lock" in str(finding.hint)
    assert read_lock(path, to_replace=True) == without_samples(lock(1))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"samples/1:table2\n"])
def test_the_samples_of_another_lock_are_refused(content: bytes, path: Path) -> None:
    write_lock(lock(1), path)
    samples_path(path).write_bytes(content)
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert caught.value.code == "AD517"
    assert "another lock" in caught.value.findings[0].message


def test_a_folder_in_the_samples_place_is_refused(path: Path) -> None:
    write_lock(lock(1), path)
    samples_path(path).unlink()
    samples_path(path).mkdir()
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert caught.value.code == "AD517"


def test_samples_with_a_merge_conflict_or_other_line_ends_are_found(path: Path) -> None:
    write_lock(lock(1), path)
    tables = "<<<<<<< HEAD\r\nsamples/1:table2\r\n=======\r\nsamples/1:table1\r\n>>>>>>> b\r\n"
    samples_path(path).write_bytes(tables.encode())
    assert read_lock(path) == lock(1)
    assert not is_written(lock(1), path)
    write_lock(lock(1), path)
    assert samples_path(path).read_text() == render_tables(["samples/1:table1"])


def test_a_lock_without_a_base_leaves_no_samples(path: Path) -> None:
    write_lock(lock(1), path)
    write_lock(lock(2, None), path)
    assert [p.name for p in path.parent.iterdir()] == ["a.lock"]
    assert read_lock(path) == lock(2, None)


def test_a_killed_writer_leaves_a_lock_with_its_samples(path: Path) -> None:
    for line in killed_at_every_line(
        lambda: write_lock(lock(2), path),
        (lockfile, lock_samples, owner),
        lambda: write_lock(lock(1), path),
    ):
        assert read_lock(path) in (lock(1), lock(2)), line
    assert read_lock(path) == lock(2)
    assert {p.name for p in path.parent.iterdir()} == {"a.lock", "a.lock.samples"}


def test_a_reader_never_sees_a_lock_without_its_samples(path: Path) -> None:
    write_lock(lock(0), path)
    failed: list[Any] = []

    def write(first: int) -> None:
        for number in range(first, first + 30):
            write_lock(lock(number), path)

    def read() -> None:
        while any(writer.is_alive() for writer in writers):
            try:
                assert read_lock(path) is not None
            except BaseException as error:
                failed.append(error)
                return

    writers = [threading.Thread(target=write, args=(first,)) for first in (100, 200)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in (*writers, *readers):
        thread.join()
    assert failed == []
    assert read_lock(path) in (lock(129), lock(229))
    assert is_written(read_lock(path), path)  # type: ignore[arg-type]


def test_a_full_disk_leaves_the_old_lock_with_its_samples(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(lock(1), path)
    real, calls = lockfile._replace, []

    def full(target: Path, text: str) -> None:
        calls.append(target)
        if target == path:
            raise OSError(28, "No space left on device")
        real(target, text)

    monkeypatch.setattr(lockfile, "_replace", full)
    with pytest.raises(LockError) as caught:
        write_lock(lock(2), path)
    assert caught.value.code == "AD503"
    assert read_lock(path) == lock(1)


def test_a_first_lock_that_cannot_be_written_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lockfile._replace

    def full(target: Path, text: str) -> None:
        if target == path:
            raise OSError(28, "No space left on device")
        real(target, text)

    monkeypatch.setattr(lockfile, "_replace", full)
    with pytest.raises(LockError):
        write_lock(lock(1), path)
    assert list(path.parent.iterdir()) == []
