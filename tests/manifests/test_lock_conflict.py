"""Git's conflict markers in a lock: they are named, and each side is read."""

from __future__ import annotations

import pytest
from adapterdock.manifests.lock_conflict import both_sides, first_conflict

PLAIN = b"a: 1\nb: 2\n"
MERGE = b"a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> branch\nc: 4\n"
DIFF3 = b"<<<<<<< HEAD\nb: 2\n||||||| 1a2b\nb: 0\n=======\nb: 3\n>>>>>>> branch\nc: 4\n"


def test_a_file_without_markers_has_no_conflict() -> None:
    assert first_conflict(PLAIN) is None
    assert first_conflict(b"a: '<<<<<<< HEAD'\n  <<<<<<< HEAD\n<<<<<<<<\n") is None
    assert both_sides(PLAIN) == (PLAIN, PLAIN)


def test_each_side_of_a_conflict_is_a_complete_text() -> None:
    assert first_conflict(MERGE) == 2
    assert both_sides(MERGE) == (b"a: 1\nb: 2\nc: 4\n", b"a: 1\nb: 3\nc: 4\n")


def test_what_both_sides_come_from_belongs_to_none() -> None:
    assert both_sides(DIFF3) == (b"b: 2\nc: 4\n", b"b: 3\nc: 4\n")


def test_windows_line_ends_are_read() -> None:
    assert both_sides(MERGE.replace(b"\n", b"\r\n")) == (
        b"a: 1\r\nb: 2\r\nc: 4\r\n",
        b"a: 1\r\nb: 3\r\nc: 4\r\n",
    )


def test_two_conflicts_are_both_read() -> None:
    assert both_sides(MERGE + DIFF3) == (
        b"a: 1\nb: 2\nc: 4\nb: 2\nc: 4\n",
        b"a: 1\nb: 3\nc: 4\nb: 3\nc: 4\n",
    )


@pytest.mark.parametrize(
    "lost", [b"<<<<<<< HEAD\n", b"=======\n", b">>>>>>> branch\n", b"=======\nb: 3\n"]
)
def test_markers_that_are_not_in_pairs_have_no_sides(lost: bytes) -> None:
    assert both_sides(MERGE.replace(lost, b"")) is None
