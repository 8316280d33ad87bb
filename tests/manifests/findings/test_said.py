"""Reports as text and as HTML for notebooks."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings import language as codes
from adapterdock.manifests.findings.finding import Report, Where
from adapterdock.manifests.findings.notebook import lines_html, text

EVIL = "<script>alert('x')</script>&\x1b[2J"


class Page(HTMLParser):
    """The texts, the tags that are open at the end, and every address."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.all: set[str] = set()
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.add(tag)
        self.tags += [] if tag == "br" else [tag]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report(name: str = "a") -> Report:
    wrong = codes.BAD_NAME.finding(f"Invalid name {name!r}", Where(name, ("adapters", name), 3, 4))
    like = codes.SAME_SOURCE.finding("Same", Where("b.yaml"), found=name)
    return Report("b.yaml", (like, wrong), adapters={name: {"method": "LORA", "rank": 4}})


def test_a_printed_report_reads_like_the_command_line(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapterdock.cli.console import out
    from adapterdock.cli.render import print_report

    path = at_desk / "adapters.yaml"
    for old, new in (("", ""), ("./adapters/a0", "./none"), ("version: 1", "version: 2")):
        path.write_text(path.read_text().replace(old, new))
        result = adapterdock.validate("adapters.yaml")
        print_report(result, out)
        shown = capsys.readouterr().out.splitlines()
        lines = [x for x in shown if " | " not in x and not x.startswith("Learn more")]
        assert str(result).splitlines() == lines


def test_control_characters_are_escaped_in_text() -> None:
    assert "\x1b" not in str(report(EVIL)) and "\\x1b" in str(report(EVIL))


@pytest.mark.parametrize(
    "make",
    [lambda: report(EVIL)._repr_html_(), lambda: lines_html([f"+ adapter {EVIL}", EVIL])],  # pyright: ignore[reportPrivateUsage]
)
def test_html_is_escaped_complete_and_needs_no_assets(make: Callable[[], str]) -> None:
    page = Page(make())
    assert page.tags == [] and page.addresses == []
    assert page.all <= {"div", "span", "code", "table", "tr", "th", "td", "br"}
    assert "alert('x')" in "".join(page.texts)
    assert "\x1b" not in make()


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2 defines it."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        low = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * low[0] + 0.7152 * low[1] + 0.0722 * low[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_html_can_be_read_on_any_background() -> None:
    html = report()._repr_html_() + lines_html(["+ a", "~ b", "- c"])  # pyright: ignore[reportPrivateUsage]
    for ground in re.findall(r"background:(#\w{6})", html):
        assert contrast(ground, "#ffffff") >= 4.5
    colours = re.findall(r"[; \"]color:([^;\"]+)", html)
    assert set(colours) <= {"#fff", "inherit"}
    assert text("a\n<b>") == "a<br>&lt;b&gt;"
