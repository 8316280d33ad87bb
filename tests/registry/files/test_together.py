"""Files that are written together: old, new, or a mix that is noticed; nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.manifests import lockfile, owner
from adapterdock.manifests.lockfile import Lock, read_lock, write_lock
from adapterdock.manifests.owner import made_beside
from adapterdock.registry.files import exchange as exchange_module
from adapterdock.registry.files import new_folder as merged_folder
from adapterdock.registry.files import together
from adapterdock.registry.files.exchange import exchange
from adapterdock.registry.files.new_folder import MARK, replacing
from adapterdock.registry.files.scratch import scratch_folder
from adapterdock.registry.files.together import write_together
from support.builders import safetensors_bytes
from support.killed import killed_at_every_line

OLD = {"w": b"old weights", "sub/w": b"old below", "c": b"old config"}
NEW = {"w": b"new weights", "sub/w": b"new below", "c": b"new config"}


def read(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".keep"]


@pytest.fixture
def exchanges(tmp_path: Path) -> bool:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    can = exchange(one, other)
    one.rmdir(), other.rmdir()
    return can


@pytest.fixture(params=["as it is", "cannot exchange"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether folders may be exchanged; else as on a network mount."""
    if request.param == "cannot exchange":
        for module in (together, exchange_module):
            monkeypatch.setattr(module, "exchange", lambda one, other: False)
        return False
    return True


def test_folders_exchange_their_names_on_a_plain_disk(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if exchange(tmp_path / "a", tmp_path / "b"):
        assert (tmp_path / "a" / "file").read_text() == "b"
        assert (tmp_path / "b" / "file").read_text() == "a"
    assert not exchange(tmp_path / "a", tmp_path / "gone"), "and nothing is done"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_kill_at_any_line_leaves_old_or_new_where_nothing_else_is_in_the_folder(
    tmp_path: Path, exchanges: bool
) -> None:
    folder = tmp_path / "saved"
    seen: set[str] = set()
    for line in killed_at_every_line(
        lambda: write_together(folder, NEW), (together, owner), lambda: write_together(folder, OLD)
    ):
        found = read(folder)
        if exchanges:
            assert found in (OLD, NEW), line
        seen.add("new" if found == NEW else "old")
    assert seen == {"old", "new"}
    write_together(folder, NEW)
    assert read(folder) == NEW and hidden(tmp_path) == []


@pytest.mark.parametrize("beside", [True, False])
def test_a_kill_at_any_line_leaves_files_that_are_new_in_order(
    tmp_path: Path, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not beside:
        monkeypatch.setattr(Path, "is_mount", lambda self: True)
    folder = tmp_path / "saved"
    states = [{**OLD, **dict(list(NEW.items())[:count])} for count in range(len(NEW) + 1)]

    def start() -> None:
        write_together(folder, OLD)
        (folder / "README.md").write_text("mine")

    reached: set[int] = set()
    for line in killed_at_every_line(lambda: write_together(folder, NEW), (together,), start):
        found = read(folder)
        assert found.pop("README.md") == b"mine"
        found = {name: data for name, data in found.items() if not name.startswith(".")}
        assert found in states, line
        reached.add(states.index(found))
    assert reached == {0, 1, 2, 3}
    write_together(folder, NEW)
    assert hidden(tmp_path) == []


def test_a_kill_while_the_folder_is_new_leaves_nothing_or_all(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "saved"

    def start() -> None:
        if folder.exists():
            folder.rename(tmp_path / f"done-{len(list(tmp_path.iterdir()))}")

    for line in killed_at_every_line(lambda: write_together(folder, NEW), (together,), start):
        assert not folder.exists() or read(folder) == NEW, line


def test_files_of_a_running_process_stay(tmp_path: Path) -> None:
    mine = made_beside(tmp_path / "saved", "saving")
    mine.mkdir()
    write_together(tmp_path / "saved", NEW)
    assert hidden(tmp_path) == [mine]


def test_permissions_and_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    write_together(folder, OLD)
    folder.chmod(0o700)
    write_together(folder, NEW)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder)
    write_together(tmp_path / "link", OLD)
    assert (tmp_path / "link").is_symlink()
    assert (folder / "empty").is_dir() and read(folder) == OLD


def merged(folder: Path, value: float) -> None:
    with replacing(folder) as new:
        (new / "model.safetensors").write_bytes(
            safetensors_bytes({"w": ("F32", [1])}, metadata={MARK: json.dumps({"value": value})})
        )
        (new / "config.json").write_text(json.dumps({"value": value}))


def test_a_killed_merge_leaves_the_earlier_result_or_the_new_one(
    tmp_path: Path, system: bool, exchanges: bool
) -> None:
    out = tmp_path / "out"
    seen: set[float] = set()
    for line in killed_at_every_line(
        lambda: merged(out, 2), (merged_folder, exchange_module, owner), lambda: merged(out, 1)
    ):
        if system and exchanges:
            assert out.is_dir(), f"nothing is there at line {line}"
        if not out.exists():  # the next merge, even one that fails, brings the old one back
            with pytest.raises(ZeroDivisionError), replacing(out):
                raise ZeroDivisionError
        seen.add(json.loads((out / "config.json").read_text())["value"])
    assert seen == {1, 2}
    merged(out, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def lock_of(number: int) -> Lock:
    return Lock(version=1, generator=f"adapterdock {number}", inputs=f"sha256:{number:064x}")


def test_a_killed_lock_leaves_the_old_lock_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "adapters.lock"
    for line in killed_at_every_line(
        lambda: write_lock(lock_of(2), path),
        (lockfile, owner),
        lambda: write_lock(lock_of(1), path),
    ):
        assert read_lock(path) in (lock_of(1), lock_of(2)), line
    assert read_lock(path) == lock_of(2)
    assert [p.name for p in tmp_path.iterdir()] == ["adapters.lock"], "the next lock sweeps"


@pytest.mark.parametrize("name", ["adapters.lock", "saved"])
def test_similar_files_that_are_not_ours_stay(tmp_path: Path, name: str) -> None:
    act: Callable[[], None] = {
        "adapters.lock": lambda: write_lock(lock_of(1), tmp_path / name),
        "saved": lambda: write_together(tmp_path / name, NEW),
    }[name]
    theirs = [tmp_path / f".{name}.{end}" for end in ("swp", "saving-notes", "1234")]
    for path in theirs:
        path.write_text("mine")
    act()
    assert all(path.read_text() == "mine" for path in theirs)


def test_two_processes_that_save_at_once_leave_complete_files(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from adapterdock.registry.files.together import write_together\n"
        "for n in range(40):\n    write_together(Path(sys.argv[1]), {'a': b'x' * 999, 'b': b'y'})\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, str(tmp_path / "saved")]
    running = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert read(tmp_path / "saved") == {"a": b"x" * 999, "b": b"y"}
    write_together(tmp_path / "saved", {"a": b"x" * 999, "b": b"y"})
    assert hidden(tmp_path) == []


def test_temporary_files_of_a_killed_process_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        scratch_folder()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    (tmp_path / "adapterdock-mine").mkdir()
    mine = scratch_folder()
    again = scratch_folder()
    assert {*tmp_path.iterdir()} == {mine, again, tmp_path / "adapterdock-mine"}
    assert left not in (mine, again) and mine.stat().st_mode & 0o777 == 0o700
