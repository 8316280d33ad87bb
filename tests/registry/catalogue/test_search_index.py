"""What a search finds: words of a user, filters, order, and no syntax."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from adapterdock.registry.catalogue.recent import Recent
from adapterdock.registry.catalogue.search_index import (
    Query,
    SearchIndex,
    State,
    UnusableIndexError,
    match_of,
)
from adapterdock.registry.records.thin_row import ThinRow, row_of
from support.published import entry

DIGEST = "sha256:" + "3" * 64


def row(name: str, version: str = "1.0.0", **fields: Any) -> ThinRow:
    return row_of(entry(version, name=name, **fields), DIGEST)


ROWS = [
    row("team/refunds", tags=("support", "German"), licence="Apache-2.0", created="2026-01-01"),
    row("team/refunds", "1.1.0", created="2026-02-01", description="Déjà vu"),
    row("legal", description="Not about refunds", owner="ada@example.com"),
    row("tone", base={"source": "hf://org/Qwen3-8B", "aliases": ("org/copy",)}),
]


@pytest.fixture
def index() -> Iterator[SearchIndex]:
    connection = sqlite3.connect(":memory:")
    made = SearchIndex.create(connection, "a" * 32, "1")
    made.add(ROWS, {})
    yield made
    connection.close()


def found(index: SearchIndex, text: str = "", **fields: Any) -> list[str]:
    return [f"{r.name}@{r.version}" for r in index.search(Query(text, **fields)).rows]


REFUNDS = ["team/refunds@1.1.0", "team/refunds@1.0.0"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("refunds", [*REFUNDS, "legal@1.0.0"]),
        ("REFU", [*REFUNDS, "legal@1.0.0"]),
        ("team/ref", REFUNDS),
        ("refunds team", REFUNDS),
        ("deja", ["team/refunds@1.1.0"]),
        ("german", ["team/refunds@1.0.0"]),
        ("ada@example.com", ["legal@1.0.0"]),
        ("qwen3-8b", ["tone@1.0.0"]),
        ("org/copy", ["tone@1.0.0"]),
        ("efunds", []),
        ("refunds nothing", []),
        ("", ["legal@1.0.0", *REFUNDS, "tone@1.0.0"]),
        ("   ", ["legal@1.0.0", *REFUNDS, "tone@1.0.0"]),
    ],
)
def test_each_word_is_the_start_of_a_word(
    index: SearchIndex, text: str, expected: list[str]
) -> None:
    assert found(index, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"',
            '""',
            "'",
            "*",
            "(",
            ")",
            "refunds OR",
            "NOT x",
            "name:x",
            "a NEAR b",
            "-",
            "^",
            "+",
        ),
        *(
            "{name}",
            "\0",
            "a\0b",
            "\ud800",
            "😀",
            "%",
            ";--",
            '" OR "',
            "\\",
            "refunds*",
            "x" * 9999,
        ),
        " ".join("a" * 500),
    ],
)
def test_what_a_user_types_is_never_syntax(index: SearchIndex, text: str) -> None:
    found(index, text)
    found(index, "", tags=(text,), licence=text, method=text)


def test_words_like_operators_are_words(index: SearchIndex) -> None:
    assert found(index, "Not about") == ["legal@1.0.0"]
    assert found(index, "refunds OR tone") == []
    assert match_of('say "hello"') == '"say"* " hello "*'


def test_filters_hold_together_and_ignore_case(index: SearchIndex) -> None:
    assert found(index, licence="apache-2.0") == ["team/refunds@1.0.0"]
    assert found(index, method="lora", tags=("german", "Support")) == ["team/refunds@1.0.0"]
    assert found(index, "refunds", tags=("supp",)) == []
    assert found(index, method="OFT") == []


def test_only_so_many_are_shown_and_all_are_counted(index: SearchIndex) -> None:
    some = index.search(Query("refunds", limit=1))
    assert (len(some.rows), some.total) == (1, 3)


def test_bases_narrow_the_search(index: SearchIndex) -> None:
    (number,) = [n for n, text in index.bases().items() if "Qwen3" in text]
    assert [r.name for r in index.search(Query(), [number]).rows] == ["tone"]
    assert index.search(Query("refunds"), [number]).total == 0
    assert index.search(Query(), []).total == 0


def test_rows_come_back_unchanged(index: SearchIndex) -> None:
    assert set(index.search(Query()).rows) == set(ROWS)


@pytest.mark.parametrize("change", ["tags = 'x'", "tags = NULL", "marks = NULL", "tags = x'ff'"])
def test_a_damaged_row_is_an_error_of_the_database(index: SearchIndex, change: str) -> None:
    index.connection.execute(f"UPDATE versions SET {change}")
    with pytest.raises(sqlite3.Error):
        index.search(Query())


def test_a_row_is_added_once_and_its_marks_change(index: SearchIndex) -> None:
    assert index.state == State()
    index.add_recent(Recent(7, DIGEST, (ROWS[0],), {ROWS[0].key: ("yanked",)}))
    assert index.state == State(7, DIGEST)
    hits = index.search(Query("german")).rows
    assert [(hit.version, hit.marks) for hit in hits] == [("1.0.0", ("yanked",))]


def test_the_index_of_another_registry_is_not_used(index: SearchIndex) -> None:
    SearchIndex.of(index.connection, "a" * 32, "1")
    for other in (("b" * 32, "1"), ("a" * 32, "2")):
        with pytest.raises(UnusableIndexError):
            SearchIndex.of(index.connection, *other)
