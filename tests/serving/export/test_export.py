"""Exports of a manifest into a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, LockError, UsageError
from adapterdock.registry.files.digests import sha256_file
from adapterdock.registry.lock import lock
from adapterdock.serving.export.export import export
from support.project import Project, files_of

RECORD = "adapterdock-export.json"


def record(out: Path) -> dict[str, object]:
    return json.loads((out / RECORD).read_text())


def two(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    project.adapter("style", seed=5)
    project.write({"tone": "./tone", "style": "./style"})
    lock(project.manifest)
    return project


def test_every_adapter_is_a_private_copy_with_its_digest_in_the_record(
    project: Project, tmp_path: Path
) -> None:
    two(project)
    out = tmp_path / "out"
    done = export(project.manifest, out)
    assert done.outcome.written == ("tone", "style")
    assert files_of(out / "tone") == files_of(project.folder / "tone")
    said = record(out)
    assert said["schema"] == "adapterdock.export/1"
    assert said["lock"] == {"sha256": sha256_file(project.lock_file)}
    row = said["adapters"]["tone"]  # type: ignore[index]
    assert row["digest"] == project.lock.adapters["tone"].digest
    for path, file in row["files"].items():
        assert sha256_file(out / path) == file["sha256"]
        assert (out / path).stat().st_nlink == 1
        assert not (out / path).is_symlink()
        assert (out / path).stat().st_mode & 0o777 == 0o444
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "style", "tone"]

    weights = project.folder / "tone" / "adapter_model.safetensors"
    before = (out / "tone" / weights.name).read_bytes()
    with weights.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"abcd")
    assert (out / "tone" / weights.name).read_bytes() == before


def test_a_second_export_replaces_what_changed_and_removes_what_is_gone(
    project: Project, tmp_path: Path
) -> None:
    two(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    assert export(project.manifest, out).outcome.unchanged == ("tone", "style")
    project.adapter("tone", seed=9)
    project.write({"tone": "./tone"})
    lock(project.manifest, upgrade_all=True)
    outcome = export(project.manifest, out).outcome
    assert (outcome.written, outcome.removed) == (("tone",), ("style",))
    assert files_of(out / "tone") == files_of(project.folder / "tone")
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "tone"]


def test_only_writes_what_it_names_and_leaves_the_rest(project: Project, tmp_path: Path) -> None:
    two(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    project.adapter("tone", seed=9)
    project.adapter("style", seed=10)
    lock(project.manifest, upgrade_all=True)
    before = files_of(out / "style")
    assert export(project.manifest, out, only=["tone"]).outcome.written == ("tone",)
    assert files_of(out / "style") == before
    assert sorted(record(out)["adapters"]) == ["style", "tone"]  # type: ignore[call-overload]


@pytest.mark.parametrize("what", ["file", "folder", "link", "inside", "link inside"])
def test_what_no_export_wrote_is_never_replaced(
    what: str, project: Project, tmp_path: Path
) -> None:
    two(project)
    out = tmp_path / "out"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "keep").write_text("keep")
    out.mkdir()
    if "inside" in what:
        export(project.manifest, out)
        place = out / "tone" / "notes"
    else:
        place = out / "tone"
    if what in ("file", "inside"):
        place.write_text("keep")
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to(mine)
    project.adapter("tone", seed=9)
    lock(project.manifest, upgrade_all=True)
    before = files_of(out)
    with pytest.raises(UsageError) as caught:
        export(project.manifest, out)
    assert caught.value.code == "AD981"
    assert files_of(out) == before
    assert (mine / "keep").read_text() == "keep"


def test_another_format_takes_the_place_of_the_first(project: Project, tmp_path: Path) -> None:
    two(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    export(project.manifest, out, form="gguf")
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "style.gguf", "tone.gguf"]
    export(project.manifest, out, form="mlx")
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "style", "tone"]
    assert (out / "tone" / "adapters.safetensors").is_file()


def test_the_lock_must_be_there_and_current(project: Project, tmp_path: Path) -> None:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"})
    out = tmp_path / "out"
    with pytest.raises(LockError) as caught:
        export(project.manifest, out)
    assert caught.value.code == "AD504"
    lock(project.manifest)
    project.adapter("other")
    project.write({"tone": "./other"})
    with pytest.raises(LockError):
        export(project.manifest, out)
    assert not out.exists()


def test_a_changed_source_leaves_the_old_export(project: Project, tmp_path: Path) -> None:
    two(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    before = files_of(out)
    project.adapter("tone", seed=11)
    with pytest.raises(AdapterdockError):
        export(project.manifest, out)
    assert files_of(out) == before


def test_a_sum_is_written_as_one_adapter_without_torch(project: Project, tmp_path: Path) -> None:
    two(project)
    project.write(
        {"tone": "./tone", "style": "./style"},
        compositions={"both": {"of": {"tone": 1.0, "style": 0.5}}},
    )
    lock(project.manifest)
    out = tmp_path / "out"
    export(project.manifest, out, only=["both"])
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "both"]
    config = json.loads((out / "both" / "adapter_config.json").read_text())
    assert config["r"] == 8
