"""Exports of a manifest into a folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    FitError,
    LockError,
    UsageError,
)
from adapterdock.registry.files.digests import sha256_file
from adapterdock.registry.lock import lock
from adapterdock.serving.export import computed
from adapterdock.serving.export import export as module
from adapterdock.serving.export.export import export
from support.builders import write_adapter, write_safetensors
from support.project import NAME, Project, files_of

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


def test_a_folder_belongs_to_one_manifest(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    other = project.manifest.with_name("other.yaml")
    text = project.manifest.read_text()
    other.write_text(text.replace("style:", "verse:"))
    lock(other)
    before = files_of(out)
    for only in ((), ("verse",)):
        with pytest.raises(UsageError, match="another manifest") as caught:
            export(other, out, only=only)
        finding = caught.value.findings[0]
        assert (finding.code, finding.hint is not None) == ("AD989", True)
        assert str(finding.found).endswith("/adapters.yaml")
        assert str(finding.expected).endswith("/other.yaml")
        assert files_of(out) == before
    # a new version of its own manifest, which is named in another way
    project.adapter("tone", seed=9)
    lock(project.manifest, upgrade_all=True)
    monkeypatch.chdir(project.folder)
    assert export("adapters.yaml", os.path.relpath(out)).outcome.written == ("tone",)
    lock(other, upgrade_all=True)
    outcome = export(other, out, take_over=True).outcome
    assert (outcome.written, outcome.removed) == (("verse",), ("style",))
    assert export(other, out).outcome.unchanged == ("tone", "verse")


def test_a_manifest_that_moved_is_the_same_with_its_lock_or_with_its_folder(
    project: Project, tmp_path: Path
) -> None:
    two(project)
    export(project.manifest, tmp_path / "out")
    export(project.manifest, project.folder / "out")
    moved = tmp_path / "moved"
    shutil.copytree(project.folder, moved)
    again = export(moved / "adapters.yaml", tmp_path / "out").outcome
    assert again.unchanged == ("tone", "style")
    # what moves together with the folder of its export stays its own with another lock
    there = Project(moved)
    there.adapter("tone", seed=9)
    lock(there.manifest, upgrade_all=True)
    assert export(there.manifest, moved / "out").outcome.written == ("tone",)


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


def mixed(project: Project) -> Project:
    two(project)
    project.write(
        {"tone": "./tone", "style": "./style"},
        compositions={
            "blend": {"combine": "svd", "svd_rank": 4, "of": {"tone": 1.0, "style": 0.5}}
        },
    )
    lock(project.manifest)
    return project


def test_other_compositions_are_computed_with_torch(project: Project, tmp_path: Path) -> None:
    import adapterdock

    mixed(project)
    out = tmp_path / "out"
    export(project.manifest, out)
    adapterdock.load(project.manifest).save_composition(tmp_path / "wanted", "blend")
    assert files_of(out / "blend") == files_of(tmp_path / "wanted")
    row = record(out)["adapters"]["blend"]  # type: ignore[index]
    assert row["digest"] == project.lock.compositions["blend"].digest


def test_a_computed_composition_is_exported_by_itself_with_its_rank(
    project: Project, tmp_path: Path
) -> None:
    two(project)
    of = {"tone": 1.0, "style": 0.5}
    project.write(
        {"tone": "./tone", "style": "./style"},
        compositions={"wide": {"combine": "cat", "of": of}, "other": {"of": of}},
    )
    lock(project.manifest)
    out = tmp_path / "out"
    export(project.manifest, out, only=["wide"])
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "wide"]
    config = json.loads((out / "wide" / "adapter_config.json").read_text())
    row = record(out)["adapters"]["wide"]  # type: ignore[index]
    assert row["rank"] == config["r"] == 8


def test_without_torch_other_compositions_are_refused_by_name(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(project)
    monkeypatch.setattr(computed, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        export(project.manifest, tmp_path / "out")
    assert caught.value.code == "AD988"
    assert "blend" in str(caught.value)
    assert "svd" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert export(project.manifest, tmp_path / "out", only=["tone"]).outcome.written == ("tone",)


def test_an_architecture_that_is_not_proved_is_refused(project: Project, tmp_path: Path) -> None:
    project.base(kind="gpt2")
    modules = {f"transformer.h.{n}.attn.c_attn": (16, 48) for n in (0, 1)}
    project.adapter("tone", modules=modules, target_modules=["c_attn"], fan_in_fan_out=True)
    project.write({"tone": "./tone"})
    lock(project.manifest)
    for form in ("gguf", "mlx"):
        with pytest.raises(FitError) as caught:
            export(project.manifest, tmp_path / "out", form=form)  # type: ignore[arg-type]
        assert caught.value.code == "AD984"
        assert "GPT2LMHeadModel" in str(caught.value)
    assert export(project.manifest, tmp_path / "out").outcome.written == ("tone",)


def test_without_gguf_the_extra_is_named(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(project)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        export(project.manifest, tmp_path / "out", form="gguf")
    assert caught.value.code == "AD985"
    assert "adapterdock[gguf]" in str(caught.value)


def test_an_adapter_of_mlx_lm_is_no_peft_folder(project: Project, tmp_path: Path) -> None:
    project.base()
    folder = project.folder / "theirs"
    two_factors = {
        "model.layers.1.self_attn.q_proj.lora_a": ("F32", (16, 4)),
        "model.layers.1.self_attn.q_proj.lora_b": ("F32", (4, 16)),
    }
    write_safetensors(folder / "adapters.safetensors", two_factors, seed=3)
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model": NAME}))
    project.write({"theirs": "./theirs"})
    lock(project.manifest)
    with pytest.raises(FitError) as caught:
        export(project.manifest, tmp_path / "out")
    assert caught.value.code == "AD983"
    assert export(project.manifest, tmp_path / "out", form="mlx").outcome.written == ("theirs",)


def test_a_new_adapter_has_nothing_to_export(project: Project, tmp_path: Path) -> None:
    two(project)
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    project.write({"tone": "./tone", "new": {"config": config, "trainable": True}})
    lock(project.manifest)
    with pytest.raises(FitError) as caught:
        export(project.manifest, tmp_path / "out")
    assert caught.value.code == "AD955"


def test_values_that_are_not_finite_are_not_exported(project: Project, tmp_path: Path) -> None:
    two(project)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    nan = bytes.fromhex("0000c07f") * (16 * 4)
    write_adapter(project.folder / "tone", overrides={name: nan})
    lock(project.manifest, upgrade_all=True)
    with pytest.raises(AdapterdockError) as caught:
        export(project.manifest, tmp_path / "out")
    assert "NaN" in str(caught.value) or "finite" in str(caught.value)
    assert not (tmp_path / "out").exists()
