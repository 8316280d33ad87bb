"""What is said of each code: its section of ``explain/AREA.md``, the only source of these texts.

A section is a heading with id and name, one paragraph that says what is wrong, an explanation in
paragraphs, one block of ``text`` with an example that earns the code, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_SECTION = re.compile(
    r"^## (\S+) (\S+)\n\n(.+?)\n\n(.+?)\n\n```text\n(.+?)\n```\n\nWhat to do: (.+?)\n(?=\n|\Z)",
    re.MULTILINE | re.DOTALL,
)


class Section(NamedTuple):
    """One section, in the order of the page; one line for each paragraph."""

    id: str
    name: str
    summary: str
    explanation: str
    example: str
    fix: str


def sections(text: str) -> Iterator[Section]:
    """The sections of a page, or of several."""
    return map(_section, _SECTION.finditer(text))


def section_of(id: str) -> Section:
    """The section of one code."""
    text = _pages()
    found = _SECTION.match(text, text.index(f"\n## {id} ") + 1)
    assert found is not None  # a test reads every section
    return _section(found)


@cache
def _pages() -> str:
    pages = sorted(Path(__file__).with_name("explain").glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def _section(found: re.Match[str]) -> Section:
    id, name, summary, text, example, fix = found.groups()
    paragraphs = "\n".join(part.replace("\n", " ") for part in text.split("\n\n"))
    return Section(
        id, name, summary.replace("\n", " "), paragraphs, example, fix.replace("\n", " ")
    )
