"""A snapshot: rows to bytes and back, the same bytes for the same rows, and damage is noticed."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from adapterdock.registry.records.marks import Mark
from adapterdock.registry.records.snapshot import (
    MOST_UNREAD,
    InvalidSnapshotError,
    decode_snapshot,
    encode_snapshot,
    snapshot_file,
    snapshot_number,
)
from adapterdock.registry.records.thin_row import (
    COLUMNS,
    ThinRow,
    base_fingerprints,
    base_names,
    mark_words,
    row_of,
)
from support.published import entry

ID = "a" * 32
DIGEST = "sha256:" + "3" * 64
BASE = {
    "source": "hf://org/base",
    "aliases": ("org/other",),
    "fingerprints": ({"hidden_size": 64, "architecture": "LlamaForCausalLM"},),
}
ROWS = [
    row_of(entry("1.1.0", base=BASE, description="Füllwörter\n" * 99, tags=("a", "b")), DIGEST),
    row_of(entry("1.0.0", base=BASE, licence="MIT"), DIGEST, ("yanked",)),
    row_of(entry("1.0.0", name="team/tone"), DIGEST),
]


def rows_in(raw: bytes, registry: str, number: int) -> list[ThinRow]:
    return [*decode_snapshot(raw, registry, number).rows]


def test_a_row_has_twelve_columns() -> None:
    assert len(COLUMNS) == 12


def test_rows_come_back_sorted_and_unchanged() -> None:
    found = rows_in(encode_snapshot(ID, 7, ROWS), ID, 7)
    assert found == [ROWS[1], ROWS[0], ROWS[2]]
    assert base_names(found[0].base) == ["hf://org/base", "org/other"]
    assert [f.hidden_size for f in base_fingerprints(found[0].base)] == [64]
    assert base_fingerprints('{"fingerprints":[{"hidden_size":-1}, 3]}') == []


def test_the_same_rows_give_the_same_bytes() -> None:
    assert encode_snapshot(ID, 7, ROWS) == encode_snapshot(ID, 7, ROWS[::-1])
    assert encode_snapshot(ID, 7, []) != encode_snapshot(ID, 8, [])


def test_what_its_writer_could_not_read_comes_back_sorted_and_costs_nothing_without() -> None:
    keys = [("b", "1.0.0"), ("a", "2.0.0")]
    raw = encode_snapshot(ID, 7, ROWS, keys)
    assert decode_snapshot(raw, ID, 7).unread == (("a", "2.0.0"), ("b", "1.0.0"))
    assert rows_in(raw, ID, 7) == [ROWS[1], ROWS[0], ROWS[2]]
    assert b"unread" not in gzip.decompress(encode_snapshot(ID, 7, ROWS))
    many = [("a", f"1.0.{n}") for n in range(MOST_UNREAD + 5)]
    assert len(decode_snapshot(encode_snapshot(ID, 7, ROWS, many), ID, 7).unread) == MOST_UNREAD


@pytest.mark.parametrize("unread", ["x", [1], [["a"]], [["a", 1]], [["a", "b", "c"]], {}])
def test_a_list_of_unread_entries_that_is_not_one_is_refused(unread: object) -> None:
    head, rest = gzip.decompress(encode_snapshot(ID, 7, ROWS)).split(b"\n", 1)
    raw = json.dumps({**json.loads(head), "unread": unread}).encode() + b"\n" + rest
    with pytest.raises(InvalidSnapshotError):
        decode_snapshot(gzip.compress(raw), ID, 7)


def test_bases_are_kept_once() -> None:
    many = [replace(ROWS[0], version=f"1.0.{n}") for n in range(100)]
    text = gzip.decompress(encode_snapshot(ID, 7, many)).decode()
    assert text.count("LlamaForCausalLM") == 1


def test_columns_of_a_later_version_are_ignored() -> None:
    head, *lines = gzip.decompress(encode_snapshot(ID, 7, ROWS[:1])).decode().splitlines()
    data = json.loads(head)
    data["columns"] = ["new", *data["columns"]]
    row = json.dumps([{"x": 1}, *json.loads(lines[-1])])
    later = "\n".join([json.dumps(data), lines[0], row, ""])
    assert rows_in(gzip.compress(later.encode()), ID, 7) == ROWS[:1]


def test_every_cut_and_every_changed_byte_is_noticed() -> None:
    raw = encode_snapshot(ID, 7, ROWS)
    for cut in range(0, len(raw), 7):
        with pytest.raises(InvalidSnapshotError):
            rows_in(raw[:cut], ID, 7)
    for at in range(10, len(raw)):  # the first ten bytes are gzip's header
        changed = bytearray(raw)
        changed[at] ^= 0x40
        try:
            found = rows_in(bytes(changed), ID, 7)
        except InvalidSnapshotError:
            continue
        assert found == rows_in(raw, ID, 7)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"registry": "b" * 32},
        {"journal": 8},
        {"columns": COLUMNS[1:]},
        {"columns": None},
        {"rows": 2},
        {"bases": "1"},
        {"bases": 10**12},
        {"bases": -1},
    ],
)
def test_another_head_is_refused(change: dict[str, object]) -> None:
    head, rest = gzip.decompress(encode_snapshot(ID, 7, ROWS)).split(b"\n", 1)
    raw = json.dumps({**json.loads(head), **change}).encode() + b"\n" + rest
    with pytest.raises(InvalidSnapshotError):
        rows_in(gzip.compress(raw), ID, 7)


@pytest.mark.parametrize(
    "row",
    [
        "3",
        "[]",
        "{}",
        '["a"]',
        "[" * 5000,
        json.dumps([1] * 12),
        json.dumps([*"abcdefgh", [], "", [], 0]),
    ],
)
def test_another_row_is_refused(row: str) -> None:
    head, base, *_ = gzip.decompress(encode_snapshot(ID, 7, ROWS[:1])).decode().splitlines()
    raw = "\n".join([head, base, row, ""]).encode()
    with pytest.raises(InvalidSnapshotError):
        rows_in(gzip.compress(raw), ID, 7)


def test_the_number_is_in_the_name() -> None:
    assert snapshot_file(40) == "00000040.jsonl.gz"
    assert snapshot_number("snapshots/00000040.jsonl.gz") == 40
    for other in ("snapshots/40.jsonl.gz", "snapshots/00000040.jsonl", "snapshots/.gitkeep"):
        assert snapshot_number(other) is None


def test_marks_are_words() -> None:
    assert mark_words(None) == mark_words(Mark()) == ()
    assert mark_words(Mark(yanked=True, deprecated=True)) == ("yanked", "deprecated")


def test_halves_of_characters_and_huge_numbers_become_something_that_can_be_kept() -> None:
    broken = {"description": "a\ud800", "tags": ("\ud800",), "licence": "\ud800"}
    method = {"peft_type": "\ud800", "rank": 2**70, "lowest_rank": 1, "dtype": "", "parameters": 1}
    base = {"source": "\ud800", "aliases": ("\ud800",)}
    odd = entry(owner="x").model_copy(update=broken)
    parts = {
        "method": odd.method.model_copy(update=method),
        "base": odd.base.model_copy(update=base),
    }
    row = row_of(odd.model_copy(update=parts), DIGEST)
    assert rows_in(encode_snapshot(ID, 7, [row]), ID, 7) == [row]
    assert (row.description, row.rank) == ("a?", 2**31 - 1)


@pytest.mark.parametrize("change", [(b'"MIT"', b'"\\ud800"'), (b",8,", b",99999999999,")])
def test_rows_that_cannot_be_kept_are_refused(change: tuple[bytes, bytes]) -> None:
    raw = gzip.decompress(encode_snapshot(ID, 7, ROWS))
    assert change[0] in raw
    with pytest.raises(InvalidSnapshotError):
        rows_in(gzip.compress(raw.replace(*change)), ID, 7)
