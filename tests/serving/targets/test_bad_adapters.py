"""Each adapter that vLLM accepts silently, refuses or dies of is refused before it is deployed, and
its legitimate twin is not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from adapterdock.manifests.findings.finding import Report
from adapterdock.registry.validate import validate
from adapterdock.serving.targets.check import check_local_values, check_target
from adapterdock.serving.targets.target import Target
from support.bad_adapters import CASES, LIMIT, Build, Case, Does, write
from support.project import Project

VLLM = Target.parse("vllm==0.32", max_rank=LIMIT)
BY_US: Mapping[str, str] = {
    **dict.fromkeys(("dora", "modules-to-save", "bias", "lora-bias", "alora", "loha"), "AD945"),
    **dict.fromkeys(("layer-replication", "trainable-tokens", "peft-type-ia3"), "AD945"),
    **dict.fromkeys(("pissa", "olora", "bd-lora", "velora", "stored-output-layer"), "AD945"),
    "prefix-off-by-one": "AD945",
    **dict.fromkeys(("rank-over-limit", "rank-pattern-over-limit"), "AD946"),
    **dict.fromkeys(("wrong-vocabulary", "larger-hidden-size", "smaller-hidden-size"), "AD343"),
    **dict.fromkeys(("unknown-targets", "wrong-layers"), "AD342"),
    **dict.fromkeys(("understated-rank", "understated-rank-within-limit"), "AD336"),
    "overstated-rank": "AD336",
    "another-base": "AD360",
    "missing-prefix": "AD948",
    "pickle": "AD252",
    "only-layer-0": "AD333",
    **dict.fromkeys(("all-zero", "nan", "infinite"), "AD866"),
}
"""The code that refuses each case, by the case's name."""


def report_on(build: Build, project: Project, target: Target = VLLM) -> Report:
    project.base()
    write(build, project.folder / "one")
    manifest = project.write({"one": "./one"})
    return validate(
        manifest,
        also=lambda resolution: [
            *check_target(target, resolution.file, resolution.adapters, resolution.base),
            *check_local_values(resolution.file, resolution.adapters),
        ],
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_adapter_is_refused(case: Case, project: Project) -> None:
    report = report_on(case.bad, project)
    assert not report.ok
    assert BY_US[case.name] in {finding.code for finding in report.findings}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_its_legitimate_twin_is_served(case: Case, project: Project) -> None:
    report = report_on(case.twin, project)
    assert report.ok, [str(finding) for finding in report.findings]


def test_there_are_32_and_each_outcome_of_vllm_is_among_them() -> None:
    assert len({case.name for case in CASES}) == 32
    assert {case.does for case in CASES} == set(Does)
