"""What is said of each code: its section of ``explain/AREA.md``, the only source of these texts.

A section is a heading with id and name, one paragraph that says what is wrong, an explanation in
paragraphs, one block of ``text`` with an example that earns the code, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


def sections(page: str) -> Iterator[Section]:
    """The sections of a page."""
    for id, name, summary, text, example, fix in _SECTION.findall(page):
        paragraphs = "\n".join(part.replace("\n", " ") for part in text.split("\n\n"))
        fix = fix.replace("\n", " ")
        yield Section(id, name, summary.replace("\n", " "), paragraphs, example, fix)


@cache
def explained() -> Mapping[str, Section]:
    """Every section, by the id of its code."""
    pages = Path(__file__).with_name("explain").glob("*.md")
    found = (section for page in pages for section in sections(page.read_text(encoding="utf-8")))
    return {section.id: section for section in found}
