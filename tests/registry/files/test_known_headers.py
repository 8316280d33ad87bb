"""Headers that are the same are parsed once; others never pass for them."""

from __future__ import annotations

import pytest
from adapterdock import SourceError
from adapterdock.registry.files.header import parse_header, read_header
from adapterdock.registry.files.known_headers import LIMIT, KnownHeaders
from support.builders import safetensors_bytes


def read(data: bytes, known: KnownHeaders) -> object:
    header = read_header(lambda at, n: data[at : at + n], len(data), find=known.find)
    known.keep(header)
    return header


def data_of(rows: int) -> bytes:
    return safetensors_bytes({"a": ("F32", (rows, 2))})


def test_the_same_header_is_parsed_once() -> None:
    known = KnownHeaders()
    first = read(data_of(3), known)
    assert read(data_of(3), known) is first == parse_header(data_of(3), len(data_of(3)))
    assert read(data_of(4), known) is not first


def test_a_truncated_or_longer_file_with_that_header_is_still_refused() -> None:
    known = KnownHeaders()
    read(data_of(3), known)
    for wrong in (data_of(3)[:-1], data_of(3) + b"\0"):
        with pytest.raises(SourceError):
            read(wrong, known)


def test_only_the_last_ones_are_kept() -> None:
    known = KnownHeaders()
    first = read(data_of(1), known)
    for rows in range(2, LIMIT + 1):
        read(data_of(rows), known)
    assert read(data_of(1), known) is first  # and it is the last one used now
    read(data_of(LIMIT + 1), known)
    assert read(data_of(1), known) is first
    assert known.find(data_of(2), len(data_of(2))) is None
