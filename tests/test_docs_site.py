"""The site of ``docs/``: what ``make docs-site`` builds, tested without building it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import adapterdock
import pytest

ROOT = Path(adapterdock.__file__).parent
FOLDER = ROOT / "docs" / "site"
REPOSITORY = "https://code.example/adapterdock"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, made)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("build", monkeypatch)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("check_site", monkeypatch)


# -- the pages ----------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_once(build: ModuleType) -> None:
    places = build.pages()
    trees = "".join(tree for _, tree in build.toctrees(places))
    entries = re.findall(r"^[\w./-]+\.md$", trees, re.M)
    named = [f"reference/{x}" if x.startswith("codes/") else x for x in entries]
    assert sorted(named) == sorted(set(places.values()) - {"index.md"})
    assert {place.partition("/")[0] for place in named} >= {
        "tutorial",
        "how-to",
        "serving",
        "reference",
        "explanation",
    }


def test_a_page_that_the_map_does_not_name_is_refused(build: ModuleType) -> None:
    lost = "how-to/lost.md"
    places = {**build.pages(), f"docs/{lost}": lost}
    with pytest.raises(build.SiteError, match=f"docs/README.md does not name docs/{lost}"):
        list(build.toctrees(places))


def test_no_page_shows_a_picture_from_the_network(build: ModuleType) -> None:
    for page in build.pages():
        text = build.with_links(page, (ROOT / page).read_text("utf-8"), build.pages(), REPOSITORY)
        assert not re.search(r"!\[[^\]]*\]\(https?:", text), page


def test_every_link_of_every_page_leads_somewhere_in_the_site(build: ModuleType) -> None:
    places = build.pages()
    for page, place in places.items():
        text = build.with_links(page, (ROOT / page).read_text("utf-8"), places, REPOSITORY)
        prose = build.outside_of_blocks(text, lambda part: f"\0{part}\0")
        for part in prose.split("\0")[1::2]:
            for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", part):
                to = Path(place).parent / target
                inside = Path(*_steps(to)).as_posix()
                assert inside in places.values() or inside.startswith("_static/"), (page, target)


def _steps(path: Path) -> list[str]:
    steps: list[str] = []
    for step in path.parts:
        if step == "..":
            steps.pop()
        else:
            steps.append(step)
    return steps


def test_a_link_to_no_file_is_refused(build: ModuleType) -> None:
    places = build.pages()
    with pytest.raises(build.SiteError, match=r"docs/how-to/install\.md: \.\./nothing\.md leads"):
        build.with_links("docs/how-to/install.md", "[a](../nothing.md)", places, REPOSITORY)


@pytest.mark.parametrize(
    ("link", "moved"),
    [
        ("[a](../reference/codes.md#b)", "[a](../reference/codes.md#b)"),
        ("[a](../README.md)", "[a](../index.md)"),
        ("[a](../../manifests/findings/explain/fit.md)", "[a](../reference/codes/fit.md)"),
        ("[a](../../manifests/schema.json)", f"[a]({REPOSITORY}/blob/main/manifests/schema.json)"),
        ("[a](../../tests)", f"[a]({REPOSITORY}/tree/main/tests)"),
        ("![a](../bench.svg)", "![a](../_static/bench.svg)"),
        ("![a](../pictures/site-list.png)", "![a](../_static/site-list.png)"),
        ("[a](https://example.com/x.md)", "[a](https://example.com/x.md)"),
        ("[a](#here)", "[a](#here)"),
        ("```text\n[a](nothing.md)\n```", "```text\n[a](nothing.md)\n```"),
    ],
)
def test_a_link_leads_to_the_same_thing_from_its_place_in_the_site(
    build: ModuleType, link: str, moved: str
) -> None:
    page = "docs/how-to/install.md"
    assert build.with_links(page, link, build.pages(), REPOSITORY) == moved


def test_the_first_page_has_a_diagram_and_every_diagram_says_what_it_shows(
    build: ModuleType,
) -> None:
    found = {
        page: re.findall(r"^```mermaid\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
        for page in build.pages()
    }
    assert len(found["docs/README.md"]) == 1
    for page, diagrams in found.items():
        for diagram in diagrams:
            assert re.search(r"^\s*accDescr: \w.+$", diagram, re.M), page


def test_what_builds_the_site_is_pinned() -> None:
    lines = (FOLDER / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "sphinx" in {pin.partition("==")[0] for pin in pins}
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)


# -- the check of what was built ----------------------------------------------------------------


def site(folder: Path, body: str, other: str = '<h1 id="top">other</h1>') -> Path:
    (folder / "a").mkdir()
    (folder / "index.html").write_text(f'<a href="a/other.html#top">other</a>{body}')
    (folder / "a" / "other.html").write_text(other)
    (folder / "x.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<h1 id="here"></h1><a href="#here">up</a>',
        '<a href="https://example.com/nothing">elsewhere</a><a href="a/">folder</a>',
        '<img src="x.png" alt="a picture">',
        '<link rel="canonical" href="https://docs.example/index.html">',
    ],
)
def test_a_site_whose_links_lead_somewhere_passes(
    check: ModuleType, tmp_path: Path, body: str
) -> None:
    (site(tmp_path, body) / "a" / "index.html").write_text('<a href="../index.html">up</a>')
    problems = check.broken(tmp_path)
    assert [x for x in problems if "no link leads to it" not in x] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="a/none.html">x</a>', "index.html: a/none.html leads to no file"),
        ('<a href="a/other.html#none">x</a>', "index.html: a/other.html#none leads to no anchor"),
        ('<a href="#none">x</a>', "index.html: #none leads to no anchor"),
        ('<img src="y.png" alt="y">', "index.html: y.png leads to no file"),
        ('<img src="x.png">', "index.html: the picture x.png has no description"),
        (
            '<script src="https://cdn.example/x.js"></script>',
            "index.html: loads https://cdn.example/x.js, which needs a network",
        ),
    ],
)
def test_what_is_wrong_in_a_site_is_said(
    check: ModuleType, tmp_path: Path, body: str, said: str
) -> None:
    assert check.broken(site(tmp_path, body)) == [said]


def test_a_page_that_no_link_leads_to_is_said(check: ModuleType, tmp_path: Path) -> None:
    (site(tmp_path, "") / "lost.html").write_text('<a href="index.html">home</a>')
    assert check.broken(tmp_path) == ["lost.html: no link leads to it"]
