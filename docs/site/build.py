"""Builds the site of ``docs/`` into ``build/site``: ``make docs-site``. Needs no network.

The pages are copied to ``build/site-source`` in the shape that Sphinx needs, and nothing else about
them changes:

- ``docs/README.md``, the map of all pages, is the first page. Its tables are the navigation too, so
  a page that is missing there cannot be built.
- The explanations of the codes, which `adapterdock explain` prints, are pages of the reference.
- A link to a file of the repository that is not a page leads to the repository, to this version.
- A diagram is drawn here, so that no browser loads a library for it.

Sphinx treats every warning as an error. Then ``check_site.py`` follows each link of what was built.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "build" / "site"

PICTURES = (".png", ".svg")
"""Endings of the files under ``docs/`` that pages show."""

_FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_SECTION = re.compile(r"^\*\*([^*]+)\*\*")
_ROW = re.compile(r"^\| \[([^\]]+)\]\(([^)#]+\.md)\)")
_TITLE = re.compile(r"^# (.+)$", re.M)


class SiteError(Exception):
    """The site cannot be built; the message says which page is wrong and why."""


def pages() -> dict[str, str]:
    """Every page: its path in the repository, and its path in the site's source."""
    found = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in sorted((ROOT / "docs").rglob("*.md"))
    }
    for path in sorted((ROOT / "manifests" / "findings" / "explain").glob("*.md")):
        found[path.relative_to(ROOT).as_posix()] = f"reference/codes/{path.name}"
    found["CHANGELOG.md"] = "changes.md"
    return {
        page: re.sub(r"(^|/)README\.md$", r"\1index.md", place) for page, place in found.items()
    }


def navigation(index: str) -> dict[str, list[str]]:
    """The pages that the tables of the map name, in their order, by section."""
    sections: dict[str, list[str]] = {}
    rows: list[str] = []
    for line in index.splitlines():
        if found := _SECTION.match(line):
            rows = sections.setdefault(found[1], [])
        for path in re.findall(r"\]\(([^)#]+\.md)\)", line if found else ""):
            rows.append(path)  # a section's own page, beside its name
        if found := _ROW.match(line):
            rows.append(found[2])
    return sections


def outside_of_blocks(text: str, change: Callable[[str], str]) -> str:
    """The page with its prose changed, and its fenced blocks as they are."""
    parts: list[str] = []
    end = 0
    for block in _FENCED.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def with_links(page: str, text: str, places: Mapping[str, str], repository: str) -> str:
    """A page whose relative links lead to the same things from its place in the site.

    Raises :class:`SiteError` for a link that leads nowhere.
    """
    here = posixpath.dirname(page)

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[1]))
        anchor = link[2] or ""
        path = ROOT / target
        if target.startswith("..") or not path.exists():
            raise SiteError(f"{page}: {link[1]} leads to no file")
        if target in places:
            place = posixpath.relpath(places[target], posixpath.dirname(places[page]) or ".")
            return f"]({place}{anchor})"
        if path.suffix in PICTURES:
            start = posixpath.dirname(places[page]) or "."
            return f"]({posixpath.relpath(posixpath.join('_static', path.name), start)})"
        kind = "tree" if path.is_dir() else "blob"
        return f"]({repository}/{kind}/main/{target}{anchor})"

    return outside_of_blocks(text, lambda prose: _LINK.sub(moved, prose))


def _toctree(caption: str, entries: list[str]) -> str:
    head = f":caption: {caption}\n" if caption else ""
    body = "\n".join(entries)
    return f"\n```{{toctree}}\n:hidden:\n{head}\n{body}\n```\n"


def toctrees(places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Which navigation goes to the end of which page, by the page's path in the site's source."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    sections = navigation(index)
    named = {f"docs/{path}" for entries in sections.values() for path in entries}
    codes = [place for place in places.values() if place.startswith("reference/codes/")]
    without = set(places) - named - {"docs/README.md", "CHANGELOG.md"}
    if missing := [page for page in sorted(without) if places[page] not in codes]:
        raise SiteError(f"docs/README.md does not name {', '.join(missing)}")
    for caption, entries in sections.items():
        yield "index.md", _toctree(caption, [places[f"docs/{path}"] for path in entries])
    yield "index.md", _toctree("Project", ["changes.md"])
    yield "reference/codes.md", _toctree("", [place.rpartition("reference/")[2] for place in codes])


def write_source(repository: str) -> None:
    """Writes the pages in the shape that Sphinx needs."""
    places = pages()
    shutil.rmtree(SOURCE, ignore_errors=True)
    static = SOURCE / "_static"
    static.mkdir(parents=True)
    shutil.copy(HERE / "site.css", static)
    for picture in (ROOT / "docs").rglob("*"):
        if picture.suffix in PICTURES:
            shutil.copy(picture, static)
    for page, place in places.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        text = with_links(page, text, places, repository)
        path = SOURCE / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_drawn(text, place, static), encoding="utf-8")
    for place, tree in toctrees(places):
        with (SOURCE / place).open("a", encoding="utf-8") as file:
            file.write(tree)


def _drawn(text: str, place: str, static: Path) -> str:
    """The page with pictures in place of the source of its diagrams. What a screen reader says of
    one is its `accDescr`."""
    from mermaidx import render

    def picture(block: re.Match[str]) -> str:
        described = re.search(r"^\s*accDescr: (.+)$", block[1], re.M)
        if not described:
            raise SiteError(f"{place}: the diagram has no line `accDescr: ...`")
        name = f"{place.removesuffix('.md').replace('/', '-')}-{block.start()}.svg"
        svg = render(block[1]).svg()
        (static / name).write_text(svg, encoding="utf-8")
        up = posixpath.relpath("_static", posixpath.dirname(place) or ".")
        alt = html.escape(described[1])
        return f'<div class="diagram"><img src="{up}/{name}" alt="{alt}"></div>'

    return _DIAGRAM.sub(picture, text)


def main() -> int:
    import tomllib
    from check_site import broken

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Source"]
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(), re.M)
    os.environ["ADAPTERDOCK_DOCS_VERSION"] = version[1] if version else ""
    os.environ["ADAPTERDOCK_DOCS_REPOSITORY"] = repository
    try:
        write_source(repository)
    except SiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(SITE, ignore_errors=True)
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
    state = ROOT / "build" / "site-state"
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-c", str(HERE), "-d", str(state)]
    # conf.py is beside this file, and says where its static files are from the source
    done = subprocess.run([*command, *strict, str(SOURCE), str(SITE)], check=False)
    if done.returncode != 0:
        return 1
    shutil.rmtree(SITE / ".doctrees", ignore_errors=True)
    problems = broken(SITE)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    if not problems:
        count = sum(1 for _ in SITE.rglob("*.html"))
        print(f"{SITE.relative_to(ROOT)}/index.html: {count} pages, every link followed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
