"""`adapterdock matrix`: the table, the data and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import Result
from support import terminal
from support.builders import write_base
from support.project import Project

Cli = Callable[..., Result]


@pytest.fixture
def desk(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    write_base(project.folder / "gpt2", "gpt2")
    project.adapter("tone")
    project.write({"tone": "./tone"})
    monkeypatch.chdir(project.folder)
    return project


CALL = ("matrix", "adapters.yaml", "tone", "--base", "./base", "--base", "./gpt2")


def test_the_table_says_what_fits(desk: Project, cli: Cli) -> None:
    done = cli(*CALL)
    assert done.exit_code == 3
    assert done.stdout.splitlines() == [
        "adapter\tmanifest\t./base\t./gpt2",
        "tone\tadapters.yaml\tfits\tdoes not fit (AD342)",
        "tone\t\tunchecked (AD364)\tdoes not fit (AD342)",
        "2 adapters on 2 bases: 1 fits, 2 do not, 1 unchecked",
    ]
    assert "AD342 module-not-in-base: see adapterdock explain AD342" in done.stderr
    assert cli(*CALL, "--accept", "AD364").exit_code == 0


def test_json_has_true_false_and_null(desk: Project, cli: Cli) -> None:
    data = json.loads(cli(*CALL, "--json").stdout)
    assert data["schema"] == "adapterdock.matrix/1"
    assert data["bases"] == ["./base", "./gpt2"]
    fits = [[cell["fits"] for cell in row["cells"]] for row in data["rows"]]
    assert fits == [[True, False], [None, False]]
    cell = data["rows"][1]["cells"][0]
    assert (cell["base"], cell["codes"]) == ("./base", ["AD364"])
    assert cell["why"][0].startswith("Cannot verify that the base is org/base")
    assert data["rows"][0]["method"] == "LORA" and data["rows"][0]["rank"] == 4


def test_an_input_or_a_base_that_is_named_in_several_ways_is_there_once(
    desk: Project, cli: Cli
) -> None:
    (desk.folder / "copy.yaml").symlink_to("adapters.yaml")
    whole, bases = str(desk.folder / "tone"), ("--base", "./base", "--base", "./base/")
    inputs = ("adapters.yaml", "./adapters.yaml", "*.yaml", "tone", "./tone/", whole)
    done = cli("matrix", *inputs, *bases)
    assert done.stdout.splitlines() == [
        "adapter\tmanifest\t./base",
        "tone\tadapters.yaml\tfits",
        "tone\tcopy.yaml\tfits",  # a manifest of its own, with a lock of its own
        "tone\t\tunchecked (AD364)",
        "3 adapters on 1 base: 2 fit, 1 unchecked",
    ]


def test_a_base_behind_links_in_a_circle_is_said(desk: Project, cli: Cli) -> None:
    (desk.folder / "round").symlink_to("round")
    done = cli("matrix", "adapters.yaml", "--base", "./base", "--base", "./round")
    assert done.exit_code == 1
    assert "tone\tadapters.yaml\tfits\tunchecked (" in done.stdout
    assert "round" in done.stderr and "AD990" not in done.stderr


def test_a_base_that_cannot_be_reached_is_said_though_names_already_decide(
    desk: Project, cli: Cli
) -> None:
    done = cli("matrix", "tone", "--base", "hf://other/model", "--offline")
    assert done.exit_code == 1
    assert "tone\tdoes not fit (AD360)" in done.stdout  # org/base, by its name
    assert "hf://other/model: unchecked AD257 source-unreachable" in done.stderr
    assert cli("matrix", "tone", "--base", "./gpt2", "--offline").exit_code == 0


@pytest.mark.parametrize("columns", [40, 100])
def test_it_fits_the_terminal(columns: int, desk: Project) -> None:
    done = terminal.run_on_terminal(*CALL, cwd=desk.folder, columns=columns)
    assert done.status == 3
    assert all(len(_plain(line)) <= columns for line in done.lines)
    assert "does not fit" in done.out


def _plain(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.rpartition("\r")[2])


class Page(HTMLParser):
    """What a browser makes of a page: its open elements are closed, and nothing is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "srcset")
            self.links += [value or ""] if name == "href" else []
            self.ids += [value or ""] if name == "id" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_everything_in_it_is_escaped(
    desk: Project, cli: Cli
) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'"
    desk.adapter(evil)
    done = cli("matrix", "adapters.yaml", evil, *CALL[3:], "--html", "page.html")
    assert done.exit_code == 3 and "Wrote page.html" in done.stderr
    page = Page((desk.folder / "page.html").read_text())
    assert page.open == []
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert page.tags.count("tr") == 3 and page.tags.count("details") == 3
    assert set(page.links) == {"#AD342", "#AD364"} and set(page.links) <= {
        f"#{i}" for i in page.ids
    }
    assert evil in page.text
    assert {"caption", "main", "h1", "th"} <= set(page.tags)


def test_a_page_that_cannot_be_written_leaves_the_old_one(desk: Project, cli: Cli) -> None:
    done = cli(*CALL, "--html", "none/page.html")
    assert done.exit_code == 2
    assert "AD909" in done.stderr
    assert not list(Path().glob("**/*.tmp"))
