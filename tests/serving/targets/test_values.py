"""Values that spoil a server, looked at where the files are on this machine."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.access.access import Access
from adapterdock.registry.locks.project import open_manifest
from adapterdock.registry.resolution import Resolution
from adapterdock.registry.resolve import resolve
from adapterdock.serving.targets.check import check_local_values, check_values
from support.builders import write_adapter
from support.project import Project

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def resolved(project: Project, *values: float) -> Resolution:
    project.base()
    raw = struct.pack("<64f", *values, *[0.1] * (64 - len(values)))
    write_adapter(project.folder / "one", overrides={FIRST: raw})
    return resolve(open_manifest(project.write({"one": "./one"})), Access())


def said(resolution: Resolution) -> list[Finding]:
    return check_local_values(resolution.file, resolution.adapters)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(project: Project, value: float) -> None:
    (finding,) = said(resolved(project, 0.5, value))
    assert (finding.code, finding.found) == ("AD866", FIRST)
    assert finding.where.dotted == "adapters.one.source"


def test_values_that_are_finite_pass(project: Project) -> None:
    assert said(resolved(project, 0.0, 3.4e38, 1e-45)) == []


def test_an_adapter_that_changes_nothing_is_refused(project: Project) -> None:
    project.base()
    write_adapter(project.folder / "one", seed=None)
    (finding,) = said(resolve(open_manifest(project.write({"one": "./one"})), Access()))
    assert (finding.code, finding.found) == ("AD866", "zeros")


def test_files_that_are_elsewhere_are_looked_at_when_they_are_here(project: Project) -> None:
    resolution = resolved(project, math.nan)
    (opened,) = resolution.adapters.values()
    assert opened.facts is not None and opened.plan is not None
    place = project.folder / "one"
    where = resolution.file.where(("adapters", "one"))
    assert len(check_values(opened.facts, opened.plan, lambda path: place / path, where)) == 1


def test_a_file_that_cannot_be_read_any_more_is_unchecked(project: Project) -> None:
    resolution = resolved(project)
    path: Path = project.folder / "one" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    (finding,) = said(resolution)
    assert (finding.code, finding.severity.value) == ("AD948", "unchecked")
