"""The pages of a site as HTML: nothing of a stranger's text becomes a part of a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from posixpath import dirname, join, normpath

import pytest
from adapterdock.cli.pages.facts import (
    Adapter,
    Heat,
    Problem,
    Site,
)
from adapterdock.cli.pages.render import FIRST_ROWS, render
from adapterdock.manifests.findings.errors import UsageError
from support.catalogue import catalogue, evil

VOID = {"meta", "link", "input", "br", "img"}


@dataclass
class Page(HTMLParser):
    """The elements and text of a page. Open elements must be closed in their order."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(raw: bytes) -> Page:
    page = Page()
    page.feed(raw.decode())
    page.close()
    assert page.open == []
    return page


def pages(files: Mapping[str, bytes]) -> Iterator[tuple[str, Page]]:
    for path, raw in files.items():
        if path.endswith(".html"):
            yield path, parsed(raw)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return render(catalogue(64))


@pytest.fixture(scope="module")
def seen(files: dict[str, bytes]) -> dict[str, Page]:
    """The pages of the list and of all else, and those of a few adapters."""
    return dict(pages(dict([*files.items()][:12])))


def test_nothing_of_a_strangers_text_becomes_a_part_of_a_page() -> None:
    for path, page in pages(render(evil())):
        scripts = page.all("script")
        assert [one["src"] for one in scripts] in (["assets/site.js"], ["../assets/site.js"]), path
        assert page.all("img") == []
        for tag, attributes in page.elements:
            assert not any(name.startswith("on") for name in attributes), (path, tag)
            assert "style" not in attributes
            address = attributes.get("href") or ""
            assert (
                re.match(r"(\.\./)?[a-z0-9/#-]*(\.html|\.css|icon\.svg|#main)(#|\Z)", address)
                or not address
            )
        assert "49" not in page.text  # no template is in a text
        assert "\u202e" not in page.text and "\x00" not in page.text and "\\u202e" in page.text


def test_every_page_forbids_everything_but_its_own_two_files(seen: dict[str, Page]) -> None:
    for path, page in seen.items():
        (policy,) = [
            m["content"]
            for m in page.all("meta")
            if m.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy is not None and policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy and "http" not in policy, path
        for tag in ("script", "link", "img", "iframe", "form", "object"):
            for attributes in page.all(tag):
                assert "://" not in f"{attributes.get('src')}{attributes.get('href')}"
                assert "action" not in attributes


def test_every_link_leads_to_a_page_that_is_there(
    files: dict[str, bytes], seen: dict[str, Page]
) -> None:
    for path, page in seen.items():
        for attributes in page.all("a"):
            address = attributes["href"] or ""
            if address.startswith(("#", "https://")):
                continue
            assert normpath(join(dirname(path), address.partition("#")[0])) in files, address


def test_the_same_data_gives_the_same_bytes(files: dict[str, bytes]) -> None:
    assert render(catalogue(64)) == files


def test_the_list_has_every_adapter_without_any_script(files: dict[str, bytes]) -> None:
    page = parsed(files["index.html"])
    rows = [one for one in page.all("li") if "data-f" in one]
    assert len(rows) == 64 and sum(one.get("class") == "in" for one in rows) == FIRST_ROWS
    for text in ("support/refunds", "Apache-2.0", "Support ML", "hf://Qwen/Qwen3-4B", "rank 16"):
        assert text in page.text
    assert page.all("noscript") != []


def test_the_page_of_an_adapter_has_everything_that_is_known_of_it(
    files: dict[str, bytes],
) -> None:
    page = parsed(files["adapters/billing-tone.html"])
    for text in (
        *("billing/tone", "Legal tech", "CC-BY-4.0", "hf://meta-llama", "rank", "BF16"),
        *("prod", "by ada", "Better on the tickets of October", "accuracy", "eval_loss"),
        *("by 9f86d08188", "https://example.org/data/tickets-2026", "git 3f2a9c1", "no AD301"),
        *("source: registry://team/billing/tone@", "adapter_model.safetensors", "q_proj"),
        "Part of helpful",
    ):
        assert text in page.text, text
    labels = [one.get("aria-label") or "" for one in page.all("svg")]
    assert any(
        label.startswith("Where the adapter acts, model.layers: most at") for label in labels
    )
    assert any(label.startswith("accuracy in ") for label in labels)
    assert page.all("a")[-1] is not None and {"href": "https://example.org/data/tickets-2026",
        "rel": "noopener noreferrer nofollow"} in page.all("a")  # fmt: skip


def test_the_matrix_says_what_fits_and_the_code_of_what_does_not(files: dict[str, bytes]) -> None:
    page = parsed(files["matrix.html"])
    cells = page.all("td")
    assert len(cells) == 64 * 4 and {one["class"] for one in cells} == {"yes", "no", "unknown"}
    assert "no AD301" in page.text and "? AD360" in page.text


def test_a_site_without_adapters_says_how_to_get_some() -> None:
    made = render(Site("Empty", ()))
    assert "There are no adapters here yet" in parsed(made["index.html"]).text
    assert "No base is known" in parsed(made["matrix.html"]).text
    assert "compositions.html" not in made and "problems.html" not in made


def test_an_adapter_of_which_nothing_is_known_has_a_page() -> None:
    one = Adapter("m.yaml", "x", "manifest", "./x", "", heat=Heat(why="Its weights are away."))
    page = parsed(render(Site("S", (one,)))["adapters/x.html"])
    assert "Not measured. Its weights are away." in page.text


def test_findings_are_listed_and_linked() -> None:
    made = render(Site("S", (), problems=(Problem("a.yaml", "AD101", "Duplicate key 'x'"),)))
    assert "Duplicate key 'x'" in parsed(made["problems.html"]).text
    assert "1 finding" in parsed(made["index.html"]).text


def test_without_jinja_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError) as caught:
        render(Site("S", ()))
    assert "adapterdock[site]" in (caught.value.findings[0].hint or "")


def test_what_an_adapter_comes_from_and_why_a_version_is_marked_is_on_its_page(
    files: dict[str, bytes],
) -> None:
    page = parsed(files["adapters/support-refunds.html"])
    labels = [one.get("aria-label") or "" for one in page.all("svg")]
    assert (
        "support/refunds comes from team/support/base-style@1.2.0, team/legal/terms@0.9.0" in labels
    )
    assert "yanked It was trained on data that must not be used." in page.text


def test_strangers_cannot_make_the_list_as_long_as_they_like() -> None:
    one = catalogue(1).adapters[0]
    tags, metrics = tuple(f"tag{n}" for n in range(5000)), {f"m{n}": 1.0 for n in range(100)}
    versions = (replace(one.versions[0], metrics=metrics),)
    many = replace(one, tags=tags, owner="x" * 100_000, versions=versions)
    made = render(Site("S", (many, replace(many, name="other", owner="y"))))
    assert len(made["index.html"]) < 300_000
    assert len(parsed(made["index.html"]).all("input")) < 250
    shown = parsed(made["adapters/support-refunds.html"])
    assert "76 more are in the table." in shown.text and "m99" in shown.text
