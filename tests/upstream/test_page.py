"""``docs/reference/upstream.md`` is honest: what it lists is there, and what is there it lists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
PAGE = TESTS.parent / "docs" / "reference" / "upstream.md"
CITED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> Iterator[list[str]]:
    """The cells of each line of the tables."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] != "upstream's test" and set(cells[0]) != {"-"}:
            yield cells


def place(file: str) -> Path:
    return TESTS / file if "/" in file else HERE / file


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_lists_exists() -> None:
    cited = sorted(set(CITED.findall(PAGE.read_text())))
    assert len(cited) > 60
    files = {file: names_in(place(file)) for file in {file for file, _ in cited}}
    assert [f"{file}::{name}" for file, name in cited if name not in files[file]] == []


def test_every_test_of_upstreams_behaviours_is_on_the_page() -> None:
    cited = {(place(file).name, name) for file, name in CITED.findall(PAGE.read_text())}
    own = {
        (file.name, name)
        for file in HERE.glob("test_*.py")
        if file.name != "test_page.py"
        for name in names_in(file)
    }
    assert own - cited == set()


def test_every_line_names_a_behaviour_and_its_test() -> None:
    found = list(rows())
    assert len(found) > 70
    for cells in found:
        assert len(cells) == 4, cells
        theirs, proved, ours, _ = cells
        assert re.findall(r"`test_\w+`", theirs), cells
        assert proved and not proved.endswith("."), cells
        assert CITED.findall(ours), cells


@pytest.mark.parametrize("broken", ["`test_loading.py::test_no_such_thing`", "`x.py::test_a`"])
def test_a_wrong_name_on_the_page_is_found(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text() + broken
    monkeypatch.setattr(Path, "read_text", _reading(text))
    with pytest.raises((AssertionError, FileNotFoundError)):
        test_every_test_that_the_page_lists_exists()


def _reading(page: str):  # type: ignore[no-untyped-def]
    plain = Path.read_text

    def read(path: Path, *args: object, **kwargs: object) -> str:
        return page if path == PAGE else plain(path, *args, **kwargs)  # type: ignore[arg-type]

    return read
