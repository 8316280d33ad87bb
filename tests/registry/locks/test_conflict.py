"""Two branches changed a lock: what git leaves is named, and the next lock resolves it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import LockError
from adapterdock.manifests.lockfile import Lock, LockedAdapter, is_written, render_lock
from adapterdock.registry.locks.conflict import agreed
from adapterdock.registry.validate import check_lock
from support.project import Project, codes, swap_bytes

START = """\
version: 1
base: {model: ./base, aliases: [org/base]}
adapters:
  tone: {source: ./tone}
  legal: {source: ./legal}
"""
OURS = START + "  first: {source: ./first}\n"
THEIRS = START + "  second: {source: ./second}\n"
BOTH = OURS + "  second: {source: ./second}\n"


def merged(folder: Path, ours: str, base: str, theirs: str, *style: str) -> str:
    """What ``git merge`` leaves of a file that both sides changed."""
    for name, text in (("ours", ours), ("base", base), ("theirs", theirs)):
        (folder / name).write_text(text)
    command = ["git", "merge-file", "-p", *style, "ours", "base", "theirs"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode > 0, "it has a conflict"
    return found.stdout


@pytest.fixture
def conflict(project: Project, tmp_path: Path) -> Project:
    """Both sides added an adapter; the manifest has both, the lock has conflict markers."""
    project.base()
    for seed, name in enumerate(("tone", "legal", "first", "second")):
        project.adapter(name, seed=seed)
    texts: list[str] = []
    for manifest in (OURS, START, THEIRS):
        project.lock_file.unlink(missing_ok=True)
        project.manifest.write_text(manifest)
        adapterdock.lock(project.manifest)
        texts.append(project.lock_file.read_text())
    project.lock_file.write_text(merged(tmp_path, *texts))
    project.manifest.write_text(BOTH)
    return project


def test_a_merge_conflict_is_named(conflict: Project) -> None:
    line = conflict.lock_file.read_text().splitlines().index("<<<<<<< ours") + 1
    report = check_lock(conflict.manifest)
    assert codes(report.errors) == ["AD518"]
    where = report.errors[0].where
    assert (where.file, where.line) == (str(conflict.lock_file), line)
    assert "Run `adapterdock lock`" in str(report.errors[0].hint)
    for act in (adapterdock.pull, lambda path: adapterdock.pull(path, frozen=True)):
        with pytest.raises(LockError) as caught:
            act(conflict.manifest)
        assert caught.value.code == "AD518"


def test_lock_resolves_a_merge_conflict_and_keeps_the_pins(conflict: Project) -> None:
    swap_bytes(conflict.folder / "second" / "adapter_model.safetensors")
    with pytest.raises(adapterdock.AdapterdockError) as caught:
        adapterdock.lock(conflict.manifest)  # its pin, which one side has, is kept
    assert codes(caught.value.findings) == ["AD614"]
    swap_bytes(conflict.folder / "second" / "adapter_model.safetensors")
    lock = adapterdock.lock(conflict.manifest)
    assert set(lock.adapters) == {"tone", "legal", "first", "second"}
    assert conflict.lock == lock
    assert is_written(lock, conflict.lock_file)
    assert check_lock(conflict.manifest).exit_status == 0
    conflict.lock_file.unlink()
    assert adapterdock.lock(conflict.manifest) == lock


def test_a_conflict_in_the_samples_too_is_resolved(conflict: Project) -> None:
    samples = conflict.lock_file.with_name("adapters.lock.samples")
    samples.write_text(f"<<<<<<< HEAD\n=======\n{samples.read_text()}>>>>>>> branch\n")
    lock = adapterdock.lock(conflict.manifest)
    assert is_written(lock, conflict.lock_file)
    assert check_lock(conflict.manifest).exit_status == 0


def test_an_adapter_that_both_sides_moved_is_resolved_again(
    project: Project, tmp_path: Path
) -> None:
    project.base()
    project.adapter("tone")
    project.manifest.write_text(START.replace("  legal: {source: ./legal}\n", ""))
    texts: list[str] = []
    for seed in (1, 0, 2):
        project.adapter("tone", seed=seed)
        adapterdock.lock(project.manifest, upgrade_all=True)
        texts.append(project.lock_file.read_text())
    project.lock_file.write_text(merged(tmp_path, *texts, "--diff3"))
    project.adapter("tone", seed=3)
    lock = adapterdock.lock(project.manifest)
    assert lock.adapters["tone"].digest not in "".join(texts)
    assert check_lock(project.manifest).exit_status == 0


def test_a_side_that_is_not_a_lock_is_refused_with_what_to_do(conflict: Project) -> None:
    text = conflict.lock_file.read_text()
    conflict.lock_file.write_text(text.replace("version: 1\n", ""))
    with pytest.raises(LockError) as caught:
        adapterdock.lock(conflict.manifest)
    assert caught.value.code == "AD518"
    assert "git checkout --ours" in str(caught.value.findings[0].hint)


def test_markers_that_are_not_in_pairs_are_refused(conflict: Project) -> None:
    text = conflict.lock_file.read_text()
    conflict.lock_file.write_text(text.replace("=======\n", "", 1))
    with pytest.raises(LockError) as caught:
        adapterdock.lock(conflict.manifest)
    assert "not in pairs" in str(caught.value.findings[0].found)


def test_a_pin_that_contradicts_itself_is_left_out(conflict: Project) -> None:
    lock = adapterdock.lock(conflict.manifest)
    mixed = lock.adapters["tone"].model_copy(update={"digest": lock.adapters["legal"].digest})
    broken = lock.model_copy(update={"adapters": {**lock.adapters, "tone": mixed}})
    assert set(agreed(broken, broken).adapters) == {"legal", "first", "second"}


def test_accepted_codes_of_both_sides_stay_accepted() -> None:
    def side(code: str) -> Lock:
        entry = LockedAdapter(
            declared="./a", source="./a", method="LORA", rank=4, mutable=code == "AD257"
        )
        return Lock(
            version=1,
            generator="x",
            inputs="sha256:" + "0" * 64,
            adapters={"a": entry},
            accepted=(code,),
        )

    both = agreed(side("AD257"), side("AD342"))
    assert (both.accepted, dict(both.adapters)) == (("AD257", "AD342"), {})


def test_an_earlier_lock_is_written_in_today_s_form_by_the_next_lock(project: Project) -> None:
    project.base()
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    lock = adapterdock.lock(manifest)
    samples = project.lock_file.with_name("adapters.lock.samples")
    assert samples.exists()
    earlier = lock.model_copy(update={"declared": None})
    for old in (lock, earlier):
        samples.unlink()
        project.lock_file.write_text(render_lock(old))
        assert "samples/1:" in project.lock_file.read_text()
        assert check_lock(manifest).exit_status == 0
        assert adapterdock.pull(manifest, frozen=True).lock == old
        assert adapterdock.lock(manifest) == lock
        assert is_written(lock, project.lock_file)
        assert "samples/1:" not in project.lock_file.read_text()


def test_a_lock_copied_without_its_samples_is_refused_until_it_is_locked_again(
    project: Project,
) -> None:
    project.base()
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    lock = adapterdock.lock(manifest)
    project.lock_file.with_name("adapters.lock.samples").unlink()
    assert codes(check_lock(manifest).errors) == ["AD517"]
    assert codes(adapterdock.validate(manifest).errors) == ["AD517"]
    with pytest.raises(LockError) as caught:
        adapterdock.pull(manifest)
    assert caught.value.code == "AD517"
    assert adapterdock.lock(manifest) == lock
    assert check_lock(manifest).exit_status == 0


def test_damaged_samples_in_a_lock_of_an_earlier_release_are_refused(project: Project) -> None:
    project.base()
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    lock = adapterdock.lock(manifest)
    text = render_lock(lock).replace("samples/1:Q", "samples/1:R")
    project.lock_file.write_text(text)
    assert codes(check_lock(manifest).errors) == ["AD501"]
    with pytest.raises(LockError):
        adapterdock.pull(manifest)
