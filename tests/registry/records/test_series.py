"""Numbered files that only grow."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.records.series import (
    LIMIT,
    BrokenSeriesError,
    Value,
    append,
    canonical,
    last_two,
    read_value,
)
from adapterdock.registry.storages.local_storage import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def last(storage: LocalStorage) -> Value | None:
    return last_two(storage, "s", storage.find("s"))[1]


def write(storage: LocalStorage, **data: Any) -> Value | None:
    return append(storage, "s", lambda _: data, last(storage), wait=lambda _: None)


def test_values_are_numbered_and_name_the_one_before(storage: LocalStorage) -> None:
    assert last(storage) is None
    one, two = write(storage, to="a"), write(storage, to="b")
    assert one is not None and two is not None
    assert (one.number, two.number) == (1, 2)
    assert one.data["previous"] is None
    assert two.data["previous"] == one.digest
    before, now = last_two(storage, "s", storage.find("s"))
    assert (before, now) == (one, two)


def test_many_writers_lose_nothing_and_leave_no_gap(storage: LocalStorage) -> None:
    def work(name: int) -> None:
        for number in range(8):
            append(storage, "s", lambda _, number=number: {"by": name, "n": number}, last(storage))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(storage.find("s"))
    assert len(numbers) == 32
    values = [read_value(storage, "s", number) for number in range(1, 33)]
    assert {(v.data["by"], v.data["n"]) for v in values} == {
        (name, number) for name in range(4) for number in range(8)
    }


def test_a_writer_decides_anew_after_it_lost(storage: LocalStorage) -> None:
    first = write(storage, to="a")

    def once(value: Value | None) -> Mapping[str, Any] | None:
        return {"to": "b"} if value is None else None

    assert append(storage, "s", once, None, wait=lambda _: None) is None
    assert last(storage) == first


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("s/00000003.json", canonical({"previous": None})),  # a gap
        ("s/00000002.json", canonical({"previous": None})),
        ("s/00000002.json", canonical({"previous": "sha256:" + "0" * 64})),
        ("s/00000002.json", b"[]"),
        ("s/00000002.json", b"{"),
        ("s/00000002.json", b"[" * LIMIT),
        ("s/00000002.json", b" " * (LIMIT + 1)),
    ],
)
def test_a_gap_or_a_broken_chain_is_refused(
    storage: LocalStorage, path: str, content: bytes
) -> None:
    write(storage, to="a")
    storage.create(path, content)
    with pytest.raises(BrokenSeriesError):
        last(storage)


@pytest.mark.parametrize("name", ["0000002.json", "000000002.json", "00000002.txt", "x", "2.json"])
def test_files_with_other_names_are_not_part_of_it(storage: LocalStorage, name: str) -> None:
    one = write(storage, to="a")
    storage.create(f"s/{name}", b"{}")
    assert last(storage) == one


def test_json_has_one_spelling() -> None:
    raw = canonical({"b": [1, "ä"], "a": None})
    assert raw == '{"a":null,"b":[1,"ä"]}\n'.encode()
    assert json.loads(raw) == {"b": [1, "ä"], "a": None}
