"""Many manifests in one process: bases are read once, and each adapter has its own verdict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from adapterdock.manifests.findings.finding import Report
from adapterdock.registry import read_facts, resolve
from adapterdock.registry.access.shared_reads import Reads
from adapterdock.registry.base import fingerprint
from adapterdock.registry.validate import validate
from adapterdock.registry.validate_many import Checked, exit_status_of, validate_many
from support.builders import LLAMA_QV, write_adapter, write_base
from support.project import Project


def check(manifest: str, model: str | None, reads: Reads) -> Report:
    return validate(manifest, model=model, reads=reads, accept=["AD364"])


def team(folder: Path, name: str, base: str = "../base", more: str = "") -> str:
    """A manifest in a folder of its own, with one adapter."""
    write_adapter(folder / name / "adapter")
    path = folder / name / "adapters.yaml"
    path.write_text(
        f"version: 1\nbase: {{model: {base}, aliases: [org/base]{more}}}\n"
        f"adapters:\n  {name}: {{source: ./adapter}}\n"
    )
    return str(path)


def counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    """What a function was called with, from now on."""
    real, seen = getattr(module, name), list[object]()

    def call(*arguments: object, **options: object) -> object:
        seen.append(arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, call)
    return seen


def test_a_base_of_many_manifests_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    write_base(tmp_path / "other")
    paths = [team(tmp_path, f"t{number}") for number in range(6)]
    paths.append(team(tmp_path, "t6", "../other"))
    read = counted(monkeypatch, resolve, "gather_base")
    checked = validate_many(paths, check)
    assert [one.manifest for one in checked] == paths
    assert all(one.report.ok for one in checked)
    assert len(read) == 2


def test_a_fingerprint_is_measured_once_and_still_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    wrong = ", fingerprint: {structure: 'v1:sha256:" + "0" * 64 + "'}"
    paths = [team(tmp_path, f"t{number}", more=wrong) for number in range(4)]
    measured = counted(monkeypatch, fingerprint, "fingerprint_of")
    checked = validate_many(paths, check)
    assert [one.report.exit_status for one in checked] == [1, 1, 1, 1]
    assert [one.verdicts[f"t{n}"].fits for n, one in enumerate(checked)] == [False] * 4
    assert len(measured) == 1


def test_a_shared_finding_is_at_the_place_of_each_manifest(tmp_path: Path) -> None:
    paths = [team(tmp_path, name, "../gone") for name in ("one", "two")]
    for one in validate_many(paths, check):
        (missing,) = one.report.errors
        assert (missing.code, missing.where.file) == ("AD201", one.manifest)
        assert one.verdicts[Path(one.manifest).parent.name].fits is None


def test_manifests_with_other_policies_do_not_share_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    paths = [team(tmp_path, "one"), team(tmp_path, "two")]
    strict = Path(paths[1])
    strict.write_text(strict.read_text() + "policy: {max_adapter_bytes: 1 GB}\n")
    read = counted(monkeypatch, resolve, "gather_base")
    assert all(one.report.ok for one in validate_many(paths, check))
    assert len(read) == 2


def test_several_bases_give_each_adapter_a_verdict_and_adapters_are_read_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    gpt2 = write_base(project.folder / "gpt2", "gpt2")
    project.adapter("tone")
    project.adapter("wide", modules={name: (i, 48) for name, (i, _) in LLAMA_QV.items()})
    manifest = str(project.write({"tone": "./tone", "wide": "./wide"}))
    read = counted(monkeypatch, read_facts, "read_adapter")
    models: Sequence[str | None] = (str(project.folder / "base"), str(gpt2))
    found = validate_many([manifest], check, models)
    verdicts = [{name: v.fits for name, v in one.verdicts.items()} for one in found]
    assert verdicts == [{"tone": True, "wide": False}, {"tone": False, "wide": False}]
    assert found[0].verdicts["tone"].codes == ()
    assert found[0].verdicts["wide"].codes == ("AD343",)
    assert found[1].title == f"{manifest} on {gpt2}"
    assert len(read) == 2


def test_an_adapter_of_a_registry_that_cannot_be_opened_says_why(project: Project) -> None:
    project.base()
    sources = {"tone": "registry://team/tone@1.0.0"}
    manifest = str(project.write(sources, registries={"team": "./none"}))
    (found,) = validate_many([manifest], check)
    (verdict,) = found.verdicts.values()
    assert verdict.fits is None
    assert verdict.codes == tuple(f.code for f in found.report.errors) != ()


def test_the_exit_status_is_the_worst(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    fits = Checked("a", None, Report("a"))
    wrong, unchecked = (
        validate_many([team(tmp_path, name, base)], partial(validate_alone, accept=()))[0]
        for name, base in (("one", "../gone"), ("two", "s3://nobody/base"))
    )
    assert exit_status_of([]) == exit_status_of([fits]) == 0
    assert exit_status_of([fits, unchecked]) == 3
    assert exit_status_of([unchecked, wrong, fits]) == 1


def validate_alone(manifest: str, model: str | None, reads: Reads, accept: Sequence[str]) -> Report:
    return validate(manifest, model=model, reads=reads, accept=accept, offline=True)
