"""The matrix: rows of adapters, columns of bases."""

from __future__ import annotations

from adapterdock.cli.pages.facts import Fit, Matrix
from adapterdock.cli.pages.fits import (
    Files,
    KnownBase,
    Published,
    matrix,
    recorded_bases,
    with_base,
)
from adapterdock.manifests.findings.finding import Report
from adapterdock.manifests.language.schema import Fingerprint, WeightDigests
from adapterdock.manifests.language.source import Source
from adapterdock.manifests.manifest import ManifestFile, read_manifest
from adapterdock.registry.access.shared_reads import Reads
from adapterdock.registry.base.fingerprint import Measured
from adapterdock.registry.matrix import Column, Input, matrix_of
from adapterdock.registry.records.thin_row import base_text
from adapterdock.registry.validate import validate
from support.project import Project
from support.published import entry


def fingerprint(one: str) -> Fingerprint:
    digest = f"v1:sha256:{one * 64}"
    return Fingerprint(structure=digest, weights=WeightDigests(float32=digest))


def text(source: str, *ones: str) -> str:
    prints = [fingerprint(one).model_dump(mode="json", exclude_none=True) for one in ones]
    return base_text(entry(base={"source": source, "fingerprints": prints}))


A = KnownBase("./base", "/x/base", measured=Measured(fingerprint("a")))


def check(file: ManifestFile, reads: Reads) -> Report:
    return validate(file, reads=reads)


def test_a_published_adapter_fits_the_bases_with_its_fingerprint() -> None:
    rows = [
        Published(("team", "same"), text("hf://org/a", "a")),
        Published(("team", "other"), text("hf://org/b", "b")),
        Published(("team", "unknown"), text("hf://org/c")),
    ]
    assert matrix([A], (), rows, check).fits == (
        Fit(("team", "same"), "./base", True),
        Fit(("team", "other"), "./base", False),
        Fit(("team", "unknown"), "./base", None),
    )


def test_files_are_checked_as_the_command_matrix_checks_them(project: Project) -> None:
    bases = {"own": project.base(), "twin": project.base("twin", seed=5)}
    project.base("gpt2", kind="gpt2")
    bases["gpt2"] = project.folder / "gpt2"
    project.adapter("tone")
    project.adapter("bare")
    (project.folder / "bare" / "adapter_model.safetensors").unlink()
    file = project.write({"tone": "./tone", "bare": "./bare"})
    columns = [
        KnownBase(label, str(place), Column(Source.parse(str(place))))
        for label, place in bases.items()
    ]
    row = Files("m", Input("m", read_manifest(file)), Reads().of_one_manifest(), "own")
    found = matrix(columns, [row], (), check)
    command = matrix_of([str(file)], list(map(str, bases.values())), check)
    assert found == Matrix(
        tuple(bases),
        tuple(
            Fit(("m", one.adapter), label, cell.fits, next(iter(cell.codes), None))
            for one in command.rows
            for label, cell in zip(bases, one.cells.values(), strict=True)
        ),
    )
    assert [fit.fits for fit in found.fits] == [True, None, False, None, None, None]


def test_files_are_not_checked_on_a_base_that_only_a_registry_records(project: Project) -> None:
    project.adapter("tone")
    file = read_manifest(project.write({"tone": "./tone"}))
    assert matrix([A], [Files("m", Input("m", file), Reads())], (), check).fits == ()


def test_bases_in_one_place_are_one_column_with_all_that_is_known() -> None:
    opened = [Column(Source.parse("/x/base"), names) for names in (("org/a",), ("org/b", "org/a"))]
    known = KnownBase("./base", "/x/base", opened[0])
    columns, label = with_base([A], known)
    assert (columns, label) == ([KnownBase("./base", "/x/base", opened[0], A.measured)], "./base")
    columns, _ = with_base(columns, KnownBase("./base", "/x/base", opened[1]))
    assert columns[0].opened == Column(Source.parse("/x/base"), ("org/a", "org/b"))


def test_bases_of_one_name_in_two_places_are_two_columns() -> None:
    columns, label = with_base([A], KnownBase("./base", "/y/base"))
    assert [column.label for column in columns] == ["./base", "./base (2)"]
    assert label == "./base (2)"


def test_recorded_bases_are_columns_unless_they_are_known() -> None:
    texts = [text("hf://org/a", "a"), text("hf://org/b", "b"), text("hf://org/b", "b")]
    texts += [text("hf://mirror/b", "b"), text("hf://org/b", "c"), text("hf://org/none")]
    found = recorded_bases(texts, [A])
    assert [base.label for base in found] == ["hf://org/b", "hf://org/b (2)"]
