"""Codes: each is explained, used, and in its area; and the pages made from them are current."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import adapterdock
import pytest
from adapterdock.cli import reference
from adapterdock.manifests.findings import catalogue as codes
from adapterdock.manifests.findings.catalogue import Code, all_codes
from typer.testing import Result

Cli = Callable[..., Result]
ROOT = Path(adapterdock.__file__).resolve().parent
AREAS = {
    "language": (*range(100, 200), 379),
    "sources": range(200, 250),
    "artefacts": range(250, 300),
    "fit": range(300, 400),
    "fingerprint": range(400, 500),
    "lock": range(500, 600),
    "store": range(600, 700),
    "loader": [*range(700, 800), *range(810, 850)],
    "changing": range(751, 756),
    "merging": range(756, 769),
    "training": (746, 747, 748, 769, *range(793, 800), *range(820, 830)),
    "rules": range(800, 810),
    "policy": range(850, 900),
    "usage": range(900, 1000),
}


def defined() -> list[tuple[str, str, Code]]:
    """(area, the constant's name, the code) of every code."""
    all_codes()
    return [
        (area, constant, value)
        for area in AREAS
        for constant, value in vars(getattr(codes, area)).items()
        if isinstance(value, Code)
    ]


@pytest.mark.parametrize("code", all_codes().values(), ids=lambda code: code.id)
def test_every_code_is_explained(cli: Cli, code: Code) -> None:
    result = cli("explain", code.id.lower())
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{code.id} {code.name} ({code.severity.value})\n")
    for text in (code.summary, code.explanation, code.example, code.fix):
        assert text.strip()
        assert all(
            " ".join(line.split()) in " ".join(result.stdout.split()) for line in text.split("\n")
        )
    assert cli("explain", code.name).stdout == result.stdout


def test_every_code_is_in_the_range_of_its_area_and_has_a_name_of_its_own() -> None:
    found = defined()
    assert {code.id for _, _, code in found} == set(all_codes())
    for area, _, code in found:
        assert re.fullmatch(r"AD\d{3}", code.id)
        number = int(code.id[2:])  # from 377 on, new codes of any area
        assert number in AREAS[area] or 377 <= number < 400, f"{code.id} is in {area}.py"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code.name)
    names = [code.name for _, _, code in found]
    assert sorted(set(names)) == sorted(names)


def test_every_code_is_used_somewhere() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for room in ("manifests", "registry", "loader", "cli")
        for path in (ROOT / room).rglob("*.py")
        if "codes" not in path.parts
    ]
    text = "\n".join(sources)
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text))
    dead = [f"{code.id} {constant}" for _, constant, code in defined() if constant not in used]
    assert not dead


def test_every_code_that_is_named_exists() -> None:
    known = set(all_codes())
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"\bAD\d{3}\b", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= known, page


def test_without_a_code_all_are_listed(cli: Cli) -> None:
    rows = [line.split("\t") for line in cli("explain").stdout.splitlines()]
    assert rows[0] == ["code", "severity", "name", "summary"]
    assert [row[0] for row in rows[1:]] == list(all_codes())


def test_an_unknown_code_is_wrong_usage_with_the_nearest(cli: Cli) -> None:
    result = cli("explain", "modul-not-in-base")
    assert result.exit_code == 2
    assert "did you mean 'module-not-in-base'?" in result.stderr


def test_codes_are_data_with_json(cli: Cli) -> None:
    data = json.loads(cli("explain", "AD120", "--json").stdout)
    assert data["schema"] == "adapterdock.codes/1"
    assert [code["name"] for code in data["codes"]] == ["unknown-key"]
    assert len(json.loads(cli("explain", "--json").stdout)["codes"]) == len(all_codes())


def test_the_reference_pages_are_current() -> None:
    assert reference.main(["--check"]) == 0, "run python -m adapterdock.cli.reference"


def test_a_stale_reference_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "DOCS", tmp_path / "docs")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "docs" / "reference" / "cli.md").write_text("old")
    assert reference.main(["--check"]) == 1
