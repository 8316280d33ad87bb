"""Codes: each has its range, its words and its section, is used, and keeps its number for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings.catalogue import AREAS, all_codes, codes_by_area
from adapterdock.manifests.findings.code import Code
from adapterdock.manifests.findings.explained import Section, section_of, sections
from support.plain_words import DIALECT

ROOT = Path(adapterdock.__file__).resolve().parent
EXPLAIN = ROOT / "manifests" / "findings" / "explain"
RANGES = {
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
    "policy": range(850, 860),
    "registry": (*range(835, 850), 857, 858, 859, *range(860, 900)),
    "serving": range(943, 990),
    "usage": (*range(900, 943), *range(990, 1000)),
}


def constants() -> Iterator[tuple[str, Code]]:
    """Every code, with the name of its constant."""
    for area in AREAS:
        for name, value in vars(import_module(f"adapterdock.manifests.findings.{area}")).items():
            if isinstance(value, Code):
                yield name, value


def test_every_file_of_codes_is_an_area() -> None:
    folder = ROOT / "manifests" / "findings"
    files = {p.stem for p in folder.glob("*.py") if "= Code(" in p.read_text("utf-8")}
    assert files == set(AREAS) == set(RANGES)


def test_no_id_or_name_is_used_twice() -> None:
    words = [word for _, code in constants() for word in (code.id, code.name, *code.was)]
    assert sorted(set(words)) == sorted(words)
    assert len(all_codes()) == sum(1 for _ in constants())


@pytest.mark.parametrize("area", AREAS)
def test_every_code_is_in_the_range_of_its_area(area: str) -> None:
    for code in codes_by_area()[area]:
        assert re.fullmatch(r"AD\d{3}", code.id)
        number = int(code.id[2:])  # from 377 on, new codes of any area
        assert number in RANGES[area] or 377 <= number < 400, f"{code.id} is in {area}.py"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code.name)


@pytest.mark.parametrize("area", AREAS)
def test_every_code_has_its_section_and_every_section_its_code(area: str) -> None:
    page = (EXPLAIN / f"{area}.md").read_text("utf-8")
    found = [(section.id, section.name) for section in sections(page)]
    assert found == [(code.id, code.name) for code in codes_by_area()[area]]
    assert len(found) == sum(line.startswith("## ") for line in page.split("\n"))
    assert all(text.strip() for section in sections(page) for text in section)


def test_a_code_says_what_its_section_says() -> None:
    section = sections(
        "## AD000 toy\n\nA\nb.\n\nC\nd.\n\nE.\n\n```text\nf\n```\n\nWhat to do: G\nh.\n"
    )
    assert [*section] == [Section("AD000", "toy", "A b.", "C d.\nE.", "f", "G h.")]
    for code in all_codes().values():
        assert (code.summary, code.fix) == (code.explained.summary, code.explained.fix)
        assert code.finding("It happened").hint == section_of(code.id).fix


def test_a_finding_is_made_even_where_no_file_can_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(id: str) -> Section:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("adapterdock.manifests.findings.code.section_of", refuse)
    code = next(iter(all_codes().values()))
    assert code.finding("It happened").hint == f"Run `adapterdock explain {code.id}`."


NAMES = ("transformers", "registry://")
"""Names that keep their case at the start of a sentence, like those with _ . or = in them."""


@pytest.mark.parametrize("area", AREAS)
def test_texts_are_plain_sentences(area: str) -> None:
    for code in codes_by_area()[area]:
        assert re.match(r"[A-Z`]", code.fix), code.id
        first = code.summary.split()[0]
        assert re.match(r"[A-Z`]|\w+[_.=]", first) or first in NAMES, code.id
        for text in (code.summary, code.fix, code.explained.explanation):
            assert text.endswith("."), code.id
            assert not DIALECT.search(text), f"{code.id}: {text}"


def test_every_page_is_that_of_an_area_and_is_listed() -> None:
    assert {page.stem for page in EXPLAIN.iterdir()} == set(AREAS)
    listed = re.findall(
        r"explain/(\w+)\.md", (ROOT / "docs" / "reference" / "codes.md").read_text("utf-8")
    )
    assert listed == list(AREAS)


def test_every_code_is_used_somewhere() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for room in ("manifests", "registry", "loader", "serving", "cli")
        for path in (ROOT / room).rglob("*.py")
        if "findings" not in path.parts
    )
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text))
    assert [f"{code.id} {name}" for name, code in constants() if name not in used] == []


def test_every_code_on_a_page_exists() -> None:
    known = {*all_codes(), *(word for _, code in constants() for word in code.was)}
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.rglob("findings/explain/*.md")]
    for page in pages:
        named = re.findall(r"\bAD\d{3}\b", page.read_text(encoding="utf-8"))
        assert set(named) - known <= {"AD000"}, page.name  # an example of none


def test_the_fault_that_has_two_codes_is_explained_under_both() -> None:
    codes = all_codes()
    for one, other in (("AD703", "AD866"), ("AD866", "AD703")):
        assert other in codes[one].explained.explanation
