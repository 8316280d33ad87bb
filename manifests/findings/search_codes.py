"""Codes by words: which of them say something about a subject. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from .catalogue import all_codes
from .code import Code

_WORD = re.compile(r"[a-z0-9_]+")
_ID = re.compile(r"ad\d+")


def search_codes(words: Sequence[str]) -> list[Code]:
    """The codes whose id, name or texts have all ``words``; the ones that are about them first.

    A word counts where a word of the text starts with it, in any case: ``token`` is found in
    ``tokens``, but not in ``subtoken``. What looks like a code is found in ids only: texts name
    other codes.
    """
    wanted = [" ".join(parts) for word in words if (parts := _words(word))]
    if not wanted:
        return []
    depth = 1 if any(_ID.fullmatch(word) for word in wanted) else None
    ranked = [
        (places.index(True), code)
        for code in all_codes().values()
        if True in (places := [_has(text, wanted) for text in _texts(code)[:depth]])
    ]
    return [code for _, code in sorted(ranked, key=lambda row: row[0])]


def known_words() -> frozenset[str]:
    """The words of all names and summaries."""
    texts = (f"{code.name} {code.summary}" for code in all_codes().values())
    return frozenset(word for text in texts for word in _words(text))


def _has(text: str, wanted: Iterable[str]) -> bool:
    return all(f" {word}" in text for word in wanted)


@cache
def _texts(code: Code) -> tuple[str, ...]:
    """What a code is about, the closest first; each contains the one before it."""
    section = code.explained
    parts = [
        f"{code.id} {code.name} {' '.join(code.was)}",
        section.summary,
        f"{section.explanation} {section.example} {section.fix}",
    ]
    found, text = list[str](), ""
    for part in parts:
        text += f" {' '.join(_words(part))}"
        found.append(text)
    return tuple(found)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
