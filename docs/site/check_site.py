"""Follows every link of a built site, without a server and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself, by tag, and in which attribute it is named.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@dataclass
class Page:
    """What a page refers to, and the anchors that others can refer to."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    without_alt: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.page.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif tag in LOADED and values.get(LOADED[tag]) and values.get("rel") != "canonical":
            self.page.loads.append(values[LOADED[tag]])
        if tag == "img" and not values.get("alt"):
            self.page.without_alt.append(values.get("src", ""))


def read(text: str) -> Page:
    reader = _Reader()
    reader.feed(text)
    return reader.page


def broken(site: Path) -> list[str]:
    """What is wrong: a link to no file or no anchor, something that a browser would load from
    elsewhere, a picture without a description, and a page that no link leads to."""
    found = {path: read(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = [
        f"{path.relative_to(site)}: {problem}"
        for path, page in found.items()
        for problem in _problems(path, page, found)
    ]
    return problems + [f"{page}: no link leads to it" for page in _unreachable(site, found)]


def _problems(path: Path, page: Page, found: dict[Path, Page]) -> Iterator[str]:
    for target in page.loads:
        if urlsplit(target).netloc:
            yield f"loads {target}, which needs a network"
    for target in page.without_alt:
        yield f"the picture {target} has no description"
    for target in [*page.links, *page.loads]:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = _file(path, parts.path)
        if not file.exists():
            yield f"{target} leads to no file"
        elif parts.fragment and file in found and not _has(found[file], parts.fragment):
            yield f"{target} leads to no anchor"


def _has(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.anchors


def _file(path: Path, target: str) -> Path:
    if not target:
        return path
    file = (path.parent / unquote(target)).resolve()
    return file / "index.html" if file.is_dir() else file


def _unreachable(site: Path, found: dict[Path, Page]) -> list[str]:
    start = site.resolve() / "index.html"
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen or path not in found:
            continue
        seen.add(path)
        links = (urlsplit(target) for target in found[path].links)
        waiting += [_file(path, link.path) for link in links if not link.scheme]
    made = {"search.html", "genindex.html", "404.html"}
    return [x.name for x in found if x not in seen and x.name not in made]
