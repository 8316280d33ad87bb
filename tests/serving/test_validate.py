"""`adapterdock.validate(target=)`: what an engine cannot serve, in Python."""

from __future__ import annotations

import math
import struct

import adapterdock
import pytest
from support.builders import lora_config, write_adapter
from support.project import NAME, Project

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def ready(project: Project, **fields: object) -> Project:
    project.base()
    project.adapter("tone", **fields)  # type: ignore[arg-type]
    project.write({"tone": "./tone"})
    return project


def test_an_adapter_over_the_limit_of_the_engine_is_found_and_one_within_it_is_not(
    project: Project,
) -> None:
    manifest = ready(project, r=32).manifest
    (finding,) = adapterdock.validate(manifest, target="vllm==0.32", max_rank=16).findings
    assert (finding.code, finding.found, finding.expected) == ("AD946", "32", "at most 16")
    assert finding.where.dotted == "adapters.tone.source"
    assert adapterdock.validate(manifest, target="vllm==0.32", max_rank=32).ok
    assert adapterdock.validate(manifest).ok


def test_more_names_than_one_batch_runs_is_a_warning(project: Project) -> None:
    manifest = ready(project).write({"tone": "./tone", "other": "./tone"})
    report = adapterdock.validate(manifest, target="vllm", max_loras=1)
    found = [one.expected for one in report.findings if one.code == "AD949"]
    assert found == ["at most 1"]
    assert report.ok


def test_values_that_spoil_a_server_are_found_with_a_target_only(project: Project) -> None:
    manifest = ready(project).manifest
    raw = struct.pack("<64f", math.nan, *[0.1] * 63)
    config = lora_config(base_model_name_or_path=NAME)
    write_adapter(project.folder / "tone", config, overrides={FIRST: raw})
    assert adapterdock.validate(manifest).ok
    (finding,) = adapterdock.validate(manifest, target="vllm").findings
    assert (finding.code, finding.found) == ("AD866", FIRST)


@pytest.mark.parametrize(
    "asked", [{"target": "vlm"}, {"target": "mlx", "max_rank": 8}, {"max_rank": 16}]
)
def test_a_wrong_target_is_a_finding_and_raises_nothing(
    project: Project, asked: dict[str, object]
) -> None:
    report = adapterdock.validate(ready(project).manifest, **asked)  # type: ignore[arg-type]
    assert [finding.code for finding in report.findings] == ["AD943"]
    assert (report.subject, report.ok) == (str(project.manifest), False)
