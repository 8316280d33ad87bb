"""What `validate --format` prints for code scanning, pull requests and test reports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from click.testing import Result
from support.builders import write_adapter, write_base
from support.project import NAME

Cli = Callable[..., Result]
SARIF = json.loads((Path(__file__).parents[1] / "support" / "sarif-2.1.0.json").read_text())
"""OASIS's schema of SARIF 2.1.0, reduced to what may be written here."""


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a manifest that fits, one that does not and one that is unchecked; the
    current folder is a folder in it."""
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    (tmp_path / ".git").mkdir()
    place = tmp_path / "a, b"
    write_base(place / "base")
    write_adapter(place / "tone", {**_config(), "base_model_name_or_path": NAME})
    for name, source, alias in (
        ("fits", "./tone", NAME),
        ("wrong", "./gone", NAME),
        ("open", "./tone", "a folder"),
    ):
        (place / f"{name}.yaml").write_text(
            f"version: 1\nbase: {{model: ./base, aliases: [{alias}]}}\n"
            f"adapters:\n  tone: {{source: {source}}}\n"
        )
    (place / "other.yaml").write_text("services: {}\n")
    monkeypatch.chdir(place)
    return place


def _config() -> dict[str, object]:
    from support.builders import lora_config

    return lora_config()


def test_text_has_a_line_for_each_manifest_and_a_total(catalogue: Path, cli: Cli) -> None:
    done = cli("validate", ".")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert "fits.yaml: fits (1 adapter)" in lines
    assert "open.yaml: 1 check could not run (exit 3)" in lines
    assert "wrong.yaml: cannot be read: 1 error" in lines
    assert lines[-1] == (
        "3 manifests: 1 fits, 1 does not, 1 not completely checked. "
        "Skipped 1 other YAML file: other.yaml"
    )
    assert "  4 |   tone: {source: ./gone}" in lines


def test_json_of_several_is_a_list_and_of_one_a_report(catalogue: Path, cli: Cli) -> None:
    several = json.loads(cli("validate", ".", "--json").stdout)
    assert several["schema"] == "adapterdock.reports/1"
    assert several["exit_status"] == 1 and several["ok"] is False
    assert several["counts"] == {"checked": 3, "fits": 1, "wrong": 1, "unchecked": 1, "skipped": 1}
    assert several["skipped"] == ["other.yaml"]
    assert [one["subject"] for one in several["reports"]] == [
        "fits.yaml",
        "open.yaml",
        "wrong.yaml",
    ]
    assert [one["verdicts"]["tone"] for one in several["reports"]] == [
        {"fits": True, "codes": []},
        {"fits": None, "codes": ["AD364"]},
        {"fits": None, "codes": ["AD201"]},
    ]
    alone = json.loads(cli("validate", "fits.yaml", "--format", "json").stdout)
    assert alone["schema"] == "adapterdock.report/1" and alone["subject"] == "fits.yaml"
    listed = json.loads(cli("validate", "fits.yaml", "--json", "--many").stdout)
    assert [one["subject"] for one in listed["reports"]] == ["fits.yaml"]


def test_the_exit_status_is_the_worst_of_all(catalogue: Path, cli: Cli) -> None:
    assert cli("validate", "fits.yaml", "open.yaml").exit_code == 3
    assert cli("validate", "fits.yaml", "open.yaml", "--accept", "AD364").exit_code == 0
    assert cli("validate", "open.yaml", "wrong.yaml").exit_code == 1
    assert cli("validate", "fits.yaml", "none.yaml").exit_code == 2
    assert cli("validate", "fits.yaml", "x" * 5000).exit_code == 2


def test_links_in_a_circle_are_findings_of_their_manifests(catalogue: Path, cli: Cli) -> None:
    (catalogue / "round").symlink_to("round")
    (catalogue / "loop.yaml").symlink_to("loop.yaml")
    text = (catalogue / "fits.yaml").read_text()
    (catalogue / "round.yaml").write_text(text.replace("./base", "./round"))
    (catalogue / "link.yaml").symlink_to("fits.yaml")
    done = cli("validate", ".", "--accept", "AD364")
    assert done.exit_code == 1, done.stderr
    assert "link.yaml: fits (1 adapter)" in done.stdout.splitlines()
    assert "loop.yaml: error AD101 manifest-unreadable: Cannot read the file: " in done.stdout
    assert "round.yaml: cannot be read: 1 error" in done.stdout
    assert "6 manifests: 3 fit, 3 do not." in done.stdout


def test_checking_nothing_is_an_error_but_not_for_a_hook(catalogue: Path, cli: Cli) -> None:
    (catalogue / "empty").mkdir()
    assert "AD920" in cli("validate", "empty").stderr
    assert cli("validate", "empty", "--many").exit_code == 2
    assert cli("validate", "other.yaml", "--many").exit_code == 0
    assert cli("validate", "other.yaml").exit_code == 1  # a named file is checked


def test_an_error_is_json_too_where_the_format_is_json(catalogue: Path, cli: Cli) -> None:
    for options in (["--json"], ["--format", "json"]):
        data = json.loads(cli("validate", "none.yaml", *options).stdout)
        assert (data["schema"], data["exit_status"]) == ("adapterdock.error/1", 2)


def test_json_and_another_format_contradict_each_other(catalogue: Path, cli: Cli) -> None:
    done = cli("validate", ".", "--json", "--format", "sarif")
    assert done.exit_code == 2
    assert "AD914" in done.output


def test_a_repository_that_is_named_through_a_link_is_the_repository(
    catalogue: Path, cli: Cli
) -> None:
    link = catalogue.parent.with_name(f"{catalogue.parent.name}-link")
    link.symlink_to(catalogue.parent)
    (catalogue / "inner.yaml").symlink_to("wrong.yaml")
    for name in ("wrong", "inner"):
        done = cli("validate", str(link / "a, b" / f"{name}.yaml"), "--format", "sarif")
        (result,) = json.loads(done.stdout)["runs"][0]["results"]
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place == {"uri": f"a%2C%20b/{name}.yaml", "uriBaseId": "%SRCROOT%"}
    outside = link.with_name("outside.yaml")
    outside.write_text("version: 1\nbase: {}\nadapters: {a: {source: ./gone}}\n")
    done = cli("validate", str(outside), "--format", "sarif")
    results = json.loads(done.stdout)["runs"][0]["results"]
    place = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": outside.as_uri()}


def test_sarif_is_valid_and_its_paths_start_from_the_repository(catalogue: Path, cli: Cli) -> None:
    done = cli("validate", ".", "--format", "sarif", "--accept", "AD364")
    assert done.exit_code == 1
    log = json.loads(done.stdout)
    jsonschema.Draft4Validator(SARIF).validate(log)
    (run,) = log["runs"]
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert list(rules) == ["AD201", "AD364"]
    assert rules["AD201"]["name"] == "SourceMissing"
    assert "What to do" in rules["AD201"]["help"]["markdown"]
    unchecked, error = run["results"]
    assert (error["ruleId"], error["level"], error["ruleIndex"]) == ("AD201", "error", 0)
    assert error["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "a%2C%20b/wrong.yaml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 4, "startColumn": 18},
    }
    name = error["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
    assert name == "adapters.tone.source"
    assert unchecked["level"] == "warning"
    assert unchecked["suppressions"] == [{"kind": "external", "status": "accepted"}]
    assert "suppressions" not in error


def test_the_root_is_the_workspace_of_the_runner(
    catalogue: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(catalogue))
    assert "file=wrong.yaml,line=4" in cli("validate", ".", "--format", "github").stdout
    monkeypatch.setenv("GITHUB_WORKSPACE", "/somewhere/else")
    assert "file=a%2C b/wrong.yaml," in cli("validate", ".", "--format", "github").stdout


def test_a_finding_of_a_shared_parent_is_annotated_once(catalogue: Path, cli: Cli) -> None:
    (catalogue / "parent.yaml").write_text("adapters:\n  tone: {surce: ./tone}\n")
    for name in ("one", "two"):
        (catalogue / f"{name}.yaml").write_text("version: 1\nextends: parent.yaml\n")
    calls = ("validate", "one.yaml", "two.yaml", "--format")
    assert cli(*calls, "text").stdout.count("AD120 unknown-key") == 2
    assert cli(*calls, "github").stdout.count("AD120 unknown-key") == 1
    log = json.loads(cli(*calls, "sarif").stdout)
    assert [result["ruleId"] for result in log["runs"][0]["results"]].count("AD120") == 1


def test_annotations_are_escaped_and_errors_come_first(catalogue: Path, cli: Cli) -> None:
    lines = cli("validate", ".", "--format", "github").stdout.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"] + ["adapterdock:"] * 4
    assert lines[0].startswith(
        "::error file=a%2C b/wrong.yaml,line=4,col=18,title=AD201 source-missing::"
        "./gone does not exist%0Aat: adapters.tone.source%0A"
    )


@pytest.mark.parametrize(
    "name", ["::error::hello.yaml", "##[error]hello.yaml", "a\n::error::hello.yaml", "50%25.yaml"]
)
def test_no_file_name_becomes_a_command(name: str, catalogue: Path, cli: Cli) -> None:
    (catalogue / name).write_text("version: 1\nbase: {}\nadapters: {tone: {source: ./gone}}\n")
    for line in cli("validate", ".", "--format", "github").stdout.splitlines():
        match = re.fullmatch(r"::(error|warning|notice) ((?:\w+=[^,:\n]*,?)+)::.*", line)
        if match is None:
            assert line.startswith("adapterdock: ") and "##[" not in line
            continue
        keys = [part.partition("=")[0] for part in match[2].split(",")]
        assert keys in (["file", "line", "col", "title"], ["file", "title"])


def test_junit_has_a_test_case_for_each_manifest(catalogue: Path, cli: Cli) -> None:
    done = cli("validate", ".", "--format", "junit")
    assert done.exit_code == 1
    suites = ET.fromstring(done.stdout)
    (suite,) = suites
    assert suite.attrib == {
        "name": "adapterdock validate",
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    outcomes = {case.get("name"): [child.tag for child in case] for case in suite}
    assert outcomes == {"fits.yaml": [], "open.yaml": ["error"], "wrong.yaml": ["failure"]}
    failure = suite.find(".//failure")
    assert failure is not None and failure.get("type") == "AD201"
    assert "wrong.yaml:4:18" in (failure.text or "")


def test_junit_is_xml_whatever_the_names_are(catalogue: Path, cli: Cli) -> None:
    (catalogue / "a\x07<&\ufffe\udcff.yaml").write_text("version: 1\nbase: {}\nextends: ]]>\x0b\n")
    suites = ET.fromstring(cli("validate", ".", "--format", "junit").stdout)
    names = [case.get("name", "") for case in suites.iter("testcase")]
    assert "a\ufffd<&\ufffd\ufffd.yaml" in names


def test_several_bases_print_a_verdict_of_each_adapter(catalogue: Path, cli: Cli) -> None:
    write_base(catalogue / "gpt2", "gpt2")
    done = cli("validate", "fits.yaml", "--model", "./base", "--model", "./gpt2")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    at = lines.index("fits.yaml on ./base: fits (1 adapter)")
    assert lines[at + 1] == "  tone: fits"
    assert "  tone: does not fit (AD342)" in lines
    assert lines[-1] == "1 manifest on 2 bases: 1 fits, 1 does not"


def test_locks_of_several_manifests_are_checked(
    catalogue: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("lock", "fits.yaml").exit_code == 0
    assert cli("lock", "fits.yaml", "open.yaml").exit_code == 3  # it has a check that could not run
    assert not (catalogue / "open.lock").exists()
    done = cli("lock", "--check", "fits.lock", "other.yaml")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(
        "1 manifest: 1 lock passes. Skipped 1 other YAML file: other.yaml\n"
    )
    assert cli("lock", "--check", ".").exit_code == 1  # the others have none
    write_adapter(catalogue / "tone", _config(), seed=5)
    assert cli("lock", "--check", "--many", "fits.lock").exit_code == 1
