"""Ranged answers: whatever a server sends, either the asked bytes come out or an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from adapterdock.registry.sources.ranges import MAX_SKIPPED, BadRangeError, only_range
from hypothesis import given
from hypothesis import strategies as st


@given(
    content=st.binary(min_size=1, max_size=200),
    data=st.data(),
    honours=st.booleans(),
    piece=st.integers(1, 50),
)
def test_the_requested_bytes_come_out_for_any_chunks(
    content: bytes, data: st.DataObject, honours: bool, piece: int
) -> None:
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start + 1, len(content)))
    body = content[start:stop] if honours else content
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"} if honours else {}
    counted: list[int] = []
    chunks = (body[i : i + piece] for i in range(0, len(body), piece))
    found = only_range(
        206 if honours else 200,
        headers,
        chunks,
        start=start,
        stop=stop,
        size=len(content),
        received=counted.append,
    )
    assert b"".join(found) == content[start:stop]
    assert sum(counted) <= (stop - start if honours else stop + piece)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"Content-Range": "bytes 0-9/100"}),
        (206, {"Content-Range": "bytes 10-19/99"}),
        (206, {"Content-Range": "bytes 10-20/100"}),
        (206, {"Content-Range": "items 10-19/100"}),
        (206, {"Content-Range": "bytes 10-19/100", "Content-Encoding": "gzip"}),
        (200, {"Content-Length": "99"}),
        (204, {}),
    ],
)
def test_an_answer_other_than_the_requested_range_is_refused(
    status: int, headers: dict[str, str]
) -> None:
    with pytest.raises(BadRangeError):
        list(take(status, headers, iter([b"x" * 100]), start=10, stop=20, size=100))


def test_a_range_behind_too_much_is_refused_before_reading() -> None:
    def endless() -> Iterator[bytes]:
        raise AssertionError("nothing is read")
        yield b""

    start = MAX_SKIPPED + 1
    with pytest.raises(BadRangeError):
        list(take(200, {}, endless(), start=start, stop=start + 1, size=1 << 40))


def test_reading_stops_as_soon_as_the_bytes_are_there() -> None:
    def endless() -> Iterator[bytes]:
        yield b"0123456789"
        raise AssertionError("it reads on")

    assert b"".join(take(200, {}, endless(), start=2, stop=5, size=1 << 40)) == b"234"


def take(
    status: int,
    headers: dict[str, str],
    chunks: Iterator[bytes],
    *,
    start: int,
    stop: int,
    size: int,
) -> Iterator[bytes]:
    return only_range(
        status, headers, chunks, start=start, stop=stop, size=size, received=lambda _: None
    )
