"""What ``adapterdock explain`` says of a code at length: its section of ``explain/AREA.md``.

These files are the only documentation of the codes. A section is a heading with id and name, an
explanation in paragraphs, and one block of ``text``, an example that earns the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from .catalogue import codes_by_area
from .code import Code

_SECTION = re.compile(r"^## (\S+) (\S+)\n\n(.+?)\n\n```text\n(.+?)\n```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Explanation:
    """One section: the code's id and name, and what is said of it, one line a paragraph."""

    id: str
    name: str
    text: str
    example: str


def read_area(area: str) -> str:
    """The page of one area."""
    page = resources.files(__package__ or "") / "explain" / f"{area}.md"
    return page.read_text(encoding="utf-8")


def sections(page: str) -> Iterator[Explanation]:
    """The sections of a page."""
    for id, name, text, example in _SECTION.findall(page):
        paragraphs = (" ".join(part.split("\n")) for part in text.split("\n\n"))
        yield Explanation(id, name, "\n".join(paragraphs), example)


def explanation_of(code: Code) -> Explanation:
    """The section of ``code``. Raises :class:`KeyError` for a code of no area."""
    for area, codes in codes_by_area().items():
        if code in codes:
            return next(found for found in sections(read_area(area)) if found.id == code.id)
    raise KeyError(code.id)
