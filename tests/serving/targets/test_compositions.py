"""Compositions as an engine can serve them, and adapters that the rules do not allow alone."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.access.access import Access
from adapterdock.registry.locks.project import open_manifest
from adapterdock.registry.resolve import resolve
from adapterdock.serving.targets.check import check_target
from adapterdock.serving.targets.compositions import served_names
from adapterdock.serving.targets.target import Target
from support.builders import LLAMA_QV
from support.project import Project

LIMIT_8 = Target.parse("vllm==0.32", max_rank=8)
K = {name.replace("q_proj", "k_proj"): (16, 8) for name in LLAMA_QV if "q_proj" in name}


def said(project: Project, target: Target = LIMIT_8, **keys: Any) -> list[Finding]:
    project.base()
    made: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"seed": 1},
        "three": {"seed": 2},
        "elsewhere": {"modules": K, "r": 8, "target_modules": ["k_proj"]},
    }
    for name, fields in made.items():
        project.adapter(name, **fields)
    adapters = {name: f"./{name}" for name in ("one", "two", "three", "elsewhere")}
    manifest = project.write(adapters, **keys)
    resolution = resolve(open_manifest(manifest), Access())
    assert not [f for f in resolution.findings if f.severity.value == "error"]
    return check_target(target, resolution.file, resolution.adapters, resolution.base)


def of(*names: str, combine: str = "sum", **more: Any) -> dict[str, Any]:
    return {"combine": combine, "of": dict.fromkeys(names, 1), **more}


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_sum_of_lora_is_served_as_far_as_its_ranks_add_up_to_the_limit(project: Project) -> None:
    assert said(project, compositions={"both": of("one", "two")}) == []


def test_ranks_add_at_each_module_and_the_value_to_set_is_named(project: Project) -> None:
    found = said(project, compositions={"all": of("one", "two", "three")})
    assert codes(found) == ["AD946"]
    assert (found[0].found, found[0].where.dotted) == ("12", "compositions.all")
    assert "--max-lora-rank 16" in (found[0].hint or "")


def test_ranks_at_different_modules_do_not_add(project: Project) -> None:
    assert said(project, compositions={"both": of("one", "elsewhere")}) == []


def test_a_member_that_is_reached_twice_counts_once(project: Project) -> None:
    nested = {"both": of("one", "two"), "more": of("both", "one")}
    assert said(project, compositions=nested) == []


@pytest.mark.parametrize(
    "way", [of("one", "two", combine="cat"), of("one", "two", combine="ties", density=0.5)]
)
def test_other_ways_of_combining_are_refused_with_the_way_out(
    project: Project, way: dict[str, Any]
) -> None:
    found = said(project, compositions={"both": way})
    assert codes(found) == ["AD947"]
    assert "adapterdock export" in (found[0].hint or "")


def test_members_with_other_parts_than_factors_cannot_be_joined(project: Project) -> None:
    project.adapter("biased", alora_invocation_tokens=[5])
    project.base()
    project.adapter("one")
    manifest = project.write(
        {"one": "./one", "biased": "./biased"}, compositions={"both": of("one", "biased")}
    )
    resolution = resolve(open_manifest(manifest), Access())
    found = check_target(LIMIT_8, resolution.file, resolution.adapters, resolution.base)
    assert [(f.code, f.found) for f in found if f.where.dotted == "compositions.both"] == [
        ("AD947", "biased")
    ]


def test_an_adapter_that_needs_another_is_served_in_a_composition_only(project: Project) -> None:
    rules = {"requires": {"one": ["two"]}}
    found = said(project, rules=rules, compositions={"both": of("one", "two")})
    assert [(f.code, f.severity.value) for f in found] == [("AD949", "warning")]
    assert "Ask for both" in (found[0].hint or "")


def test_an_adapter_that_needs_another_and_is_in_no_composition_is_refused(
    project: Project,
) -> None:
    found = said(project, rules={"requires": {"one": ["two"]}})
    assert [(f.code, f.where.dotted) for f in found] == [("AD947", "adapters.one")]
    assert said(project, rules={"exclusive": [["one", "two"]]}) == []


def test_the_names_that_are_served_are_those_that_the_rules_allow_alone(project: Project) -> None:
    said(
        project,
        rules={"requires": {"one": ["two"]}},
        compositions={"both": of("one", "two")},
    )
    manifest = open_manifest(project.manifest).manifest
    ranks = dict.fromkeys(manifest.adapters, 4)
    assert served_names(manifest, ranks) == ("two", "three", "elsewhere", "both")


def test_more_names_than_run_in_one_batch_are_warned_of(project: Project) -> None:
    few = Target.parse("vllm", max_loras=2)
    found = said(project, few)
    assert [(f.code, f.found) for f in found] == [("AD949", "4 names")]
    assert said(project, Target.parse("vllm", max_loras=4)) == []


def test_a_dtype_that_the_engine_does_not_follow_is_warned_of(project: Project) -> None:
    project.base()
    project.adapter("one")

    def of_dtype(dtype: str) -> list[str]:
        project.write({"one": {"source": "./one", "dtype": dtype}})
        resolution = resolve(open_manifest(project.manifest), Access())
        return codes(check_target(LIMIT_8, resolution.file, resolution.adapters, resolution.base))

    assert of_dtype("float32") == ["AD949"]
    assert of_dtype("auto") == []


def test_the_warning_of_a_newer_version_is_among_the_findings(project: Project) -> None:
    assert codes(said(project, Target.parse("vllm==7"))) == ["AD944"]


def test_an_adapter_that_could_not_be_read_is_left_to_its_own_findings(project: Project) -> None:
    project.base()
    project.adapter("one")
    project.write(
        {"one": "./one", "absent": "./absent"}, compositions={"both": of("one", "absent")}
    )
    resolution = resolve(open_manifest(project.manifest), Access())
    assert check_target(LIMIT_8, resolution.file, resolution.adapters, resolution.base) == []
