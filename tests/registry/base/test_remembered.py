"""Results for files whose content did not change."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from adapterdock.registry.base.remembered import KEPT, remembered


class Reads:
    """A reader that notes what it read."""

    def __init__(self) -> None:
        self.seen: list[dict[str, bytes]] = []

    def __call__(self, files: Mapping[str, bytes]) -> str:
        if b"broken" in files.values():
            raise ValueError("broken")
        self.seen.append(dict(files))
        return repr(sorted(files.items()))


@pytest.fixture
def reads() -> Reads:
    return Reads()


def test_the_same_content_is_read_once_whatever_its_order(reads: Reads) -> None:
    read = remembered(lambda files: reads(files))
    one, other = {"a": b"1", "b": b"2"}, {"b": b"2", "a": b"1"}
    assert read(one) == read(other)
    assert len(reads.seen) == 1


def test_other_content_and_other_names_are_read(reads: Reads) -> None:
    read = remembered(lambda files: reads(files))
    every: list[dict[str, bytes]] = [{"a": b"1"}, {"a": b"2"}, {"b": b"1"}]
    assert len({read(files) for files in every}) == 3
    assert read({}) == "[]"


def test_an_error_is_raised_again(reads: Reads) -> None:
    read = remembered(lambda files: reads(files))
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            read({"a": b"broken"})


def test_only_the_latest_results_are_kept(reads: Reads) -> None:
    read = remembered(lambda files: reads(files))
    for number in range(KEPT):
        read({"a": bytes([number])})
    read({"a": bytes([0])})  # used again, so it stays
    read({"a": b"new"})
    assert len(reads.seen) == KEPT + 1
    read({"a": bytes([0])})
    assert len(reads.seen) == KEPT + 1
    read({"a": bytes([1])})  # was the oldest
    assert len(reads.seen) == KEPT + 2
