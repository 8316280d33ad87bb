"""`adapterdock diff` of two locks."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import adapterdock
import pytest
from click.testing import Result
from support.project import Project

Cli = Callable[..., Result]


def test_diff_of_locks_prints_sentences(project: Project, cli: Cli, tmp_path: Path) -> None:
    project.base()
    project.adapter("tone")
    adapterdock.lock(project.write({"tone": "./tone"}))
    old, new = tmp_path / "old.lock", project.lock_file
    old.write_bytes(new.read_bytes())  # without its samples, as git shows it
    project.adapter("tone", seed=9)
    adapterdock.lock(project.manifest, upgrade_all=True)
    done = cli("diff", old, new)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Adapter 'tone' has other content: ")
    assert cli("diff", "/dev/null", new).stdout.startswith("The lock is new\n")
    assert cli("diff", new, new).stdout == "Both pin the same\n"
    assert json.loads(cli("diff", new, new, "--json").stdout) == {
        "schema": "adapterdock.lock-diff/1",
        "a": str(new),
        "b": str(new),
        "same": True,
        "sentences": [],
        "changes": [],
    }


def test_a_lock_that_does_not_exist_or_is_damaged_is_an_error(
    project: Project, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "bad.lock").write_text("version: 1\n")
    gone = cli("diff", tmp_path / "none.lock", tmp_path / "bad.lock")
    assert gone.exit_code == 2 and "No such lock" in gone.stderr
    damaged = cli("diff", "/dev/null", tmp_path / "bad.lock")
    assert damaged.exit_code == 1 and "AD5" in damaged.stderr


def test_a_lock_of_a_commit_or_of_a_pipe_is_compared(
    project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    project.adapter("tone")
    lock = project.lock_file
    adapterdock.lock(project.write({"tone": "./tone"}))
    monkeypatch.chdir(project.folder)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", lock.name), ("commit", "-q", "-m", "a lock")):
        subprocess.run(["git", *who, *arguments], check=True)
    before = lock.read_text()
    project.adapter("tone", seed=9)
    adapterdock.lock(project.manifest, upgrade_all=True)
    done = cli("diff", f"HEAD:./{lock.name}", lock.name)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Adapter 'tone' has other content: ")

    os.mkfifo(project.folder / "pipe")
    writer = threading.Thread(target=(project.folder / "pipe").write_text, args=(before,))
    writer.start()
    assert cli("diff", "pipe", lock.name).stdout == done.stdout
    writer.join()

    wrong = cli("diff", f"HEAD:./none{lock.suffix}", lock.name)
    assert (wrong.exit_code, "Git does not have this lock" in wrong.stderr) == (2, True)
    lock.write_text("version: 1\n")
    subprocess.run(["git", *who, "commit", "-q", "-a", "-m", "damaged"], check=True)
    damaged = cli("diff", f"HEAD:./{lock.name}", "/dev/null")
    assert damaged.stderr.startswith(f"HEAD:./{lock.name}")


def test_of_manifests_their_locks_are_compared(project: Project, cli: Cli) -> None:
    manifest = project.write({})
    done = cli("diff", manifest, manifest)
    assert done.exit_code == 2
    assert f"HEAD:./{manifest.with_suffix('.lock')}" in done.stderr
