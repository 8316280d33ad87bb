"""Adding and removing adapters: the manifest and the lock change together, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapterdock.manifests.findings import lock as lock_codes
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    LockError,
    ManifestError,
    UsageError,
)
from adapterdock.manifests.lockfile import Lock, read_lock, write_lock
from adapterdock.registry import editing
from adapterdock.registry.access.session import session_for
from adapterdock.registry.editing import add, apply, remove, source_for

TEXT = """\
# Ours
version: 1
base:
  model: ./base   # the base
adapters:   # two
  a0:
    source: ./adapters/a0   # first

  # about a1
  a1:
    source: ./adapters/a1
# end
"""


@pytest.fixture
def manifest(at_desk: Path) -> Path:
    path = at_desk / "adapters.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def carry_out(edit: editing.Edit) -> editing.Locked:
    return apply(edit, session_for(edit.file, accept=["AD364"]))


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_an_adapter_is_added_and_locked(manifest: Path) -> None:
    locked = carry_out(add(manifest, "b.v2", "adapters/a0"))
    assert manifest.read_text(encoding="utf-8") == TEXT.replace(
        "./adapters/a1\n", "./adapters/a1\n  b.v2:\n    source: ./adapters/a0\n"
    )
    lock = read_lock(manifest.with_suffix(".lock"))
    assert lock is not None and lock == locked.new and list(lock.adapters) == ["a0", "a1", "b.v2"]


def test_an_adapter_is_removed_with_its_comments_and_unlocked(manifest: Path) -> None:
    carry_out(remove(manifest, "a1"))
    assert manifest.read_text(encoding="utf-8") == TEXT.replace(
        "  # about a1\n  a1:\n    source: ./adapters/a1\n", ""
    )
    lock = read_lock(manifest.with_suffix(".lock"))
    assert lock is not None and list(lock.adapters) == ["a0"]


def test_added_and_removed_again_is_as_before(manifest: Path) -> None:
    carry_out(remove(manifest, "a1"))
    before = files(manifest.parent)
    carry_out(add(manifest, "a1", "./adapters/a1"))
    carry_out(remove(manifest, "a1"))
    assert files(manifest.parent) == before


def test_a_neighbour_in_braces_is_written_like_the_others(manifest: Path) -> None:
    manifest.write_text("version: 1\nbase: {}\nadapters:\n  a: {source: ./a}  # a\n")
    edit = add(manifest, "on", "./it's a folder")
    assert edit.text()[1].splitlines()[3:] == [
        "  a: {source: ./a}  # a",
        "  'on': {source: ./it's a folder}",
    ]
    assert str(edit.file.manifest.adapters["on"].source) == "./it's a folder"


@pytest.mark.parametrize("text", ["version: 1\nbase: {}\n", "version: 1\nbase: {}\nadapters:\n"])
def test_a_manifest_without_adapters_gets_the_first(manifest: Path, text: str) -> None:
    manifest.write_text(text)
    edit = add(manifest, "a", "hf://org/name@main")
    assert edit.text()[1] == (
        "version: 1\nbase: {}\nadapters:\n  a:\n    source: hf://org/name@main\n"
    )


def test_a_source_with_a_dollar_is_not_a_variable(manifest: Path) -> None:
    edit = add(manifest, "b", "./adapters/$HOME")
    assert "source: ./adapters/$$HOME" in edit.text()[1]
    assert str(edit.file.manifest.adapters["b"].source) == "./adapters/$HOME"


def test_a_relative_source_counts_from_the_current_folder(
    at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at_desk / "sub").mkdir()
    assert source_for("adapters/a0", Path("sub")) == "../adapters/a0"
    assert source_for("./adapters/a0", Path("adapters")) == "./a0"
    assert source_for("./adapters", Path("adapters")) == "./"
    assert source_for("oci-archive:./x.tar", Path("sub")) == "oci-archive:../x.tar"
    monkeypatch.chdir(at_desk / "sub")
    assert source_for("../adapters/a0", Path("..")) == "./adapters/a0"
    for same in ("hf://org/name@v1", "s3://bucket/a", "/srv/a", "~/a", "registry://r/a@^1"):
        assert source_for(same, Path("..")) == same
    for wrong in ("org/name", ""):
        with pytest.raises(UsageError, match="AD126"):
            source_for(wrong, Path(".."))


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (KeyboardInterrupt, "make_lock"),
        (KeyboardInterrupt, "write_lock"),
        (LockError(lock_codes.LOCK_UNWRITABLE.finding("No")), "write_lock"),
    ],
)
def test_whatever_stops_it_nothing_has_changed(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], step: str
) -> None:
    def stop(*_: object, **__: object) -> Iterator[None]:
        raise error

    edit = remove(manifest, "a1")
    before = files(manifest.parent)
    monkeypatch.setattr(editing, step, stop)
    with pytest.raises((KeyboardInterrupt, LockError)):
        carry_out(edit)
    assert files(manifest.parent) == before


@pytest.mark.parametrize("locked_before", [True, False])
def test_stopped_after_the_lock_is_written_nothing_has_changed(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, locked_before: bool
) -> None:
    if locked_before:
        carry_out(add(manifest, "b", "./adapters/a0"))
    before = files(manifest.parent)

    def stop(lock: Lock, path: Path) -> None:
        write_lock(lock, path)
        assert files(manifest.parent) != before
        raise KeyboardInterrupt

    edit = remove(manifest, "a1")
    with monkeypatch.context() as patched:
        patched.setattr(editing, "write_lock", stop)
        with pytest.raises(KeyboardInterrupt):
            carry_out(edit)
    assert files(manifest.parent) == before
    carry_out(edit)
    assert files(manifest.parent) != before


def test_an_adapter_that_cannot_be_locked_is_not_added(manifest: Path) -> None:
    before = files(manifest.parent)
    edit = add(manifest, "b", "./adapters/none")
    with pytest.raises(AdapterdockError) as refused:
        carry_out(edit)
    (finding,) = refused.value.findings
    assert finding.code == "AD201"
    assert (finding.where.dotted, finding.where.line) == ("adapters.b.source", None)
    assert files(manifest.parent) == before


def test_a_change_by_somebody_else_is_kept(manifest: Path) -> None:
    edit = remove(manifest, "a1")
    manifest.write_text(TEXT + "# new\n")
    with pytest.raises(UsageError, match="AD925"):
        carry_out(edit)
    assert manifest.read_text() == TEXT + "# new\n"
    assert not manifest.with_suffix(".lock").exists()


def test_a_link_and_its_mode_stay(manifest: Path) -> None:
    real = manifest.rename(manifest.parent / "real.yaml")
    real.chmod(0o640)
    manifest.symlink_to("real.yaml")
    carry_out(remove(manifest, "a1"))
    assert manifest.is_symlink() and "a1" not in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in manifest.parent.glob(".*")] == []


def test_a_lock_that_is_a_link_stays_one(manifest: Path) -> None:
    (manifest.parent / "locks").mkdir()
    lock = manifest.with_suffix(".lock")
    lock.symlink_to("locks/it.lock")
    carry_out(remove(manifest, "a1"))
    written = read_lock(lock)
    assert lock.is_symlink() and written is not None and list(written.adapters) == ["a0"]
    assert [p.name for p in (manifest.parent / "locks").iterdir()] == ["it.lock"]


def test_a_read_only_manifest_is_not_changed(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may write every file; anybody else is told this
    monkeypatch.setattr(os, "access", lambda path, _: bool(Path(path).stat().st_mode & 0o200))
    manifest.chmod(0o444)
    before = files(manifest.parent)
    with pytest.raises(UsageError, match=r"AD909 .*read-only"):
        carry_out(remove(manifest, "a1"))
    assert files(manifest.parent) == before
    manifest.chmod(0o644)
    carry_out(remove(manifest, "a1"))


def test_a_name_that_is_used_is_not_removed_and_each_place_is_named(manifest: Path) -> None:
    manifest.write_text(
        "version: 1\nbase: {}\nadapters:\n  a: {source: ./a}\n  b: {source: ./b}\n"
        "  c: {source: ./c}\ncompositions:\n  both: {of: {a: 1, b: 1}}\n"
        "rules:\n  exclusive: [[c, a]]\n  requires: {b: [a]}\nactive: [both]\n"
    )
    with pytest.raises(UsageError) as refused:
        remove(manifest, "a")
    assert [(f.code, f.where.dotted, f.where.line) for f in refused.value.findings] == [
        ("AD923", "compositions.both.of.a", 8),
        ("AD923", "rules.exclusive[0][1]", 10),
        ("AD923", "rules.requires.b[0]", 11),
    ]
    with pytest.raises(UsageError, match=r"active\[0\]"):
        remove(manifest, "both")
    manifest.write_text(manifest.read_text().replace("active: [both]", "active: c"))
    assert "compositions: {}\n" in remove(manifest, "both").text()[1]


def test_a_name_of_another_file_is_not_removed_here(manifest: Path) -> None:
    over = manifest.with_name("over.yaml")
    over.write_text(
        "extends: adapters.yaml\nadapters:\n  a1: {dtype: float16}\n  c: {source: ./c}\n"
    )
    for name in ("a0", "a1"):
        with pytest.raises(UsageError, match="AD924"):
            remove(over, name)
    assert "c:" not in remove(over, "c").text()[1]
    edit = add(over, "d", "./adapters/a0")
    assert list(edit.file.manifest.adapters) == ["a0", "a1", "c", "d"]
    assert edit.text()[1] == over.read_text() + "  d: {source: ./adapters/a0}\n"


@pytest.mark.parametrize(("name", "code"), [("a0", "AD922"), ("my x", "AD124"), ("x-b", "AD124")])
def test_a_name_that_cannot_be_added(manifest: Path, name: str, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        add(manifest, name, "./adapters/a0")
    assert refused.value.code == code


def test_a_name_that_is_not_there_gets_a_suggestion(manifest: Path) -> None:
    with pytest.raises(UsageError) as refused:
        remove(manifest, "a00")
    assert (refused.value.code, refused.value.findings[0].hint) == (
        "AD171",
        "Did you mean 'a0'?",
    )


def test_a_name_that_active_has_already_can_be_added(manifest: Path) -> None:
    with manifest.open("a") as stream:
        stream.write("active: pirate\n")
    edit = editing.add(manifest, "pirate", "./tone")
    assert set(edit.file.manifest.adapters) >= {"pirate"}
    with pytest.raises(ManifestError):
        editing.add(manifest, "other", "./tone")  # what is wrong then stays wrong


def test_a_published_adapter_without_its_scheme_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        source_for("team/tone@prod", tmp_path, ("team",))
    assert "registry://team/tone@prod" in str(caught.value.findings[0].hint)
    with pytest.raises(UsageError) as caught:
        source_for("acme/tone", tmp_path, ("team",))
    assert "registry://" not in str(caught.value.findings[0].hint)
