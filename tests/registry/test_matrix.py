"""Which adapters fit which bases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import adapterdock
import pytest
from adapterdock import UsageError
from adapterdock.manifests.findings.finding import Report, Where
from adapterdock.manifests.manifest import ManifestFile
from adapterdock.registry import resolve
from adapterdock.registry.access.shared_reads import Reads
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.matrix import Matrix, matrix_of
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.validate import validate
from support.builders import LLAMA_QV, write_base
from support.project import Project


def check(file: ManifestFile, reads: Reads) -> Report:
    return validate(file, reads=reads)


def accepting(file: ManifestFile, reads: Reads) -> Report:
    return validate(file, reads=reads, accept=["AD364"])


def cells(found: Matrix) -> dict[str, list[tuple[bool | None, str]]]:
    return {
        row.adapter: [(cell.fits, " ".join(cell.codes)) for cell in row.cells.values()]
        for row in found.rows
    }


@pytest.fixture
def desk(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The current folder: two bases of the same shape, one of another, and two adapters."""
    project.base()
    project.base("twin", seed=5)
    write_base(project.folder / "gpt2", "gpt2")
    project.adapter("tone")
    project.adapter("wide", modules={name: (i, 48) for name, (i, _) in LLAMA_QV.items()})
    project.write({"tone": "./tone", "wide": "./wide"})
    monkeypatch.chdir(project.folder)
    return project


def test_a_manifest_is_checked_on_its_own_base_by_default(desk: Project) -> None:
    found = matrix_of(["adapters.yaml"], [], check)
    assert found.bases == ("./base",)
    assert cells(found) == {"tone": [(True, "")], "wide": [(False, "AD343")]}
    assert found.exit_status == 0  # that it does not fit is an answer
    assert found.rows[0].facts["method"] == "LORA"
    assert found.rows[0].manifest == "adapters.yaml"


def test_aliases_are_of_the_declared_base_and_do_not_count_for_others(desk: Project) -> None:
    bases = ["./base", "./twin", "./gpt2"]
    found = matrix_of(["adapters.yaml"], bases, check)
    assert cells(found)["tone"] == [(True, ""), (None, "AD364"), (False, "AD342")]
    assert found.exit_status == 3
    accepted = matrix_of(["adapters.yaml"], bases, accepting)
    assert cells(accepted)["tone"] == [(True, ""), (True, ""), (False, "AD342")]
    assert accepted.exit_status == 0


def test_aliases_of_a_declared_base_count_for_adapters_without_one(desk: Project) -> None:
    desk.write({"wide": "./wide"})
    inputs = ["adapters.yaml", "tone"]
    assert cells(matrix_of(inputs, [], check))["tone"] == [(True, "")]
    assert cells(matrix_of(inputs, ["./base"], check))["tone"] == [(None, "AD364")]


def test_a_fingerprint_is_of_the_declared_base_too(desk: Project) -> None:
    wrong = {"structure": "v1:sha256:" + "0" * 64}
    desk.write({"tone": "./tone"}, base={"fingerprint": wrong})
    found = matrix_of(["adapters.yaml"], ["./base", "./twin"], accepting)
    (own, other) = found.rows[0].cells.values()
    assert own.fits is False and own.codes[0].startswith("AD4")
    assert (other.fits, other.codes) == (True, ())


def test_folders_of_adapters_need_no_manifest(desk: Project) -> None:
    found = matrix_of(["tone", "./wide"], ["./base"], accepting)
    assert cells(found) == {"tone": [(True, "")], "wide": [(False, "AD343")]}
    desk.manifest.unlink()
    whole = matrix_of([str(desk.folder)], ["./base"], accepting)
    assert [row.adapter for row in whole.rows] == [str(desk.folder / n) for n in ("tone", "wide")]


def test_published_adapters_are_named_by_their_selector(desk: Project) -> None:
    place = str(desk.folder / "registry")
    init_registry(LocalStorage(Path(place)))
    adapterdock.publish("./tone", "team/tone@1.0.0", registry=place, manifest=desk.manifest)
    found = matrix_of(["team/tone@^1"], ["./base"], accepting, {"team": place})
    assert cells(found) == {"team/tone@^1": [(True, "")]}
    assert found.rows[0].facts["source"] == "registry://team/tone@1.0.0"


def test_what_cannot_be_read_is_unchecked_and_the_rest_goes_on(desk: Project) -> None:
    (desk.folder / "tone" / "adapter_model.safetensors").unlink()
    broken = desk.folder / "broken.yaml"
    broken.write_text("version: 1\nbase: {modle: x}\n")
    found = matrix_of(["."], ["./base", "./none"], check)
    fits = {row.adapter: [cell.fits for cell in row.cells.values()] for row in found.rows}
    assert fits == {"tone": [None, None], "wide": [False, None]}
    wrong = [(f.code, f.where.file) for f in found.problems]
    assert wrong == [("AD120", "broken.yaml"), ("AD201", "./none")]
    assert found.exit_status == 1


def test_a_base_that_cannot_be_read_is_an_error_once(desk: Project) -> None:
    (desk.folder / "empty").mkdir()
    found = matrix_of(["tone", "wide", "adapters.yaml"], ["./base", "./empty"], accepting)
    assert [(f.code, f.where) for f in found.problems] == [("AD253", Where(file="./empty"))]
    assert found.exit_status == 1
    desk.write({"tone": "./tone"}, base={"model": "./empty"})
    (declared,) = matrix_of(["adapters.yaml"], [], accepting).problems
    assert (declared.code, declared.where.dotted) == ("AD253", "base.model")
    assert declared.where.line is not None


def test_each_base_and_each_adapter_is_read_once(
    desk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("gather_base", "gather_adapter"):
        real = getattr(resolve, name)

        def call(
            *arguments: object, real: object = real, name: str = name, **more: object
        ) -> object:
            seen.append(name)
            return real(*arguments, **more)  # type: ignore[operator]

        monkeypatch.setattr(resolve, name, call)
    matrix_of(["adapters.yaml", "tone"], ["./base", "./twin", "./gpt2"], check)
    assert sorted(seen) == ["gather_adapter"] * 3 + ["gather_base"] * 3


@pytest.mark.parametrize(
    ("inputs", "bases", "code"),
    [
        (["tone"], [], "AD921"),
        (["none"], ["./base"], "AD901"),
        (["team/tone"], ["./base"], "AD901"),
        (["adapters.yaml"], ["base"], "AD916"),
        (["gpt2"], ["./base"], "AD920"),
        (["x" * 5000], ["./base"], "AD901"),
    ],
)
def test_wrong_usage_is_refused(
    inputs: Sequence[str], bases: Sequence[str], code: str, desk: Project
) -> None:
    with pytest.raises(UsageError) as error:
        matrix_of(inputs, bases, check)
    assert error.value.code == code


def test_a_folder_with_a_dollar_sign_is_that_folder(desk: Project) -> None:
    place = desk.adapter("a$HOME")
    found = matrix_of([str(place)], ["./base"], accepting)
    assert [cell.fits for cell in found.rows[0].cells.values()] == [True]
    assert Path(found.rows[0].adapter) == place
