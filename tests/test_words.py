"""Messages, hints, help texts and docstrings are in plain words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.plain_words import DIALECT

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "loader", "manifests", "registry")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The line and text of every string with a space, without the code in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, re.sub(r"``.+?``", "", node.value)


@pytest.mark.parametrize("room", ROOMS)
def test_the_texts_of_a_room_are_in_plain_words(room: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, text in texts(path.read_text(encoding="utf-8"))
        for phrase in DIALECT.findall(text)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["'x' is no source", "the whole module", "It cannot be told."])
def test_dialect_is_found(text: str) -> None:
    assert DIALECT.search(text)


@pytest.mark.parametrize(
    "text", ["There is no lock", "It is not here", "``NEW`` is no longer used"]
)
def test_plain_words_are_not(text: str) -> None:
    (found,) = [text for _, text in texts(repr(text))]
    assert not DIALECT.search(found)
