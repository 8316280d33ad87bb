"""The safetensors header: read strictly, in few bytes, and never trusted."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import safetensors
from adapterdock.manifests.bounds import HEADER_BYTES
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.registry.files.header import (
    DTYPE_BITS,
    FIRST_READ,
    Header,
    parse_header,
    read_header,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import Spec, safetensors_bytes


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parse(data: bytes) -> Header:
    return parse_header(data, len(data))


def refusal(data: bytes) -> str:
    with pytest.raises(SourceError) as caught:
        parse(data)
    return caught.value.code


def entry(dtype: str = "U8", shape: Any = (1,), offsets: Any = (0, 1)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPECS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
        lambda name: name != "__metadata__"
    ),
    st.tuples(
        st.sampled_from([d for d in DTYPE_BITS if DTYPE_BITS[d] % 8 == 0]),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    max_size=6,
)


@settings(SLOW)
@given(SPECS, st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text("ab")))
def test_a_valid_header_comes_back_as_it_was_written(
    specs: dict[str, Spec], metadata: dict[str, str]
) -> None:
    data = safetensors_bytes(specs, metadata=metadata or {"format": "pt"})
    header = parse(data)
    assert {n: (i.dtype, i.shape) for n, i in header.tensors.items()} == specs
    assert header.metadata == (metadata or {"format": "pt"})
    assert header.data_start + sum(i.nbytes for i in header.tensors.values()) == len(data)
    assert header.size == len(data)
    theirs = dict(safetensors.deserialize(data))
    for name, info in header.tensors.items():
        begin = header.data_start
        ours = data[begin + info.start : begin + info.end]
        assert ours == bytes(theirs[name]["data"])


@settings(SLOW)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error_of_ours(data: bytes) -> None:
    try:
        parse(data)
    except SourceError as error:
        assert error.code in ("AD301", "AD302", "AD303")


JUNK = st.sampled_from([None, True, -1, 1 << 65, 0.5, "x", [], {}, [[1]], {"a": 1}, {"a": "b"}])
NEARLY = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__", "c"]),
    JUNK
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["U8", "F32", "F4", "F8_E4M3", "Q4"]),
            "shape": st.lists(st.integers(-1, 3), max_size=2) | JUNK,
            "data_offsets": st.lists(st.integers(0, 9), min_size=2, max_size=2) | JUNK,
        }
    ),
    max_size=3,
)


@settings(SLOW, max_examples=500)
@given(NEARLY, st.integers(0, 12), st.integers(-2, 2))
def test_the_safetensors_library_accepts_what_we_accept(
    header: dict[str, Any], size: int, off: int
) -> None:
    text = json.dumps(header).encode()
    data = struct.pack("<Q", max(len(text) + off, 0)) + text + bytes(size)
    try:
        ours = parse(data)
    except SourceError:
        return
    theirs = dict(safetensors.deserialize(data))
    assert {n: list(i.shape) for n, i in ours.tensors.items()} == {
        n: t["shape"] for n, t in theirs.items()
    }


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_dtype_of_the_library_is_known(dtype: str) -> None:
    data = file_of({"a": entry(dtype, [8], [0, DTYPE_BITS[dtype]])}, bytes(DTYPE_BITS[dtype]))
    assert parse(data).tensors["a"].dtype == dtype
    assert dict(safetensors.deserialize(data))["a"]["shape"] == [8]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "AD303"),
        (b"\x01\x00\x00", "AD303"),
        (struct.pack("<Q", HEADER_BYTES + 1) + b"{}", "AD301"),
        (struct.pack("<Q", 500) + b"{}", "AD303"),
        (file_of(b"[]"), "AD301"),
        (file_of(b" {}"), "AD301"),
        (file_of(b"\xff{}"), "AD301"),
        (file_of(b'{"a":' * 100_000), "AD301"),
        (file_of(b'{"a": NaN}'), "AD301"),
        (file_of(b'{"a": 1' + b"0" * 5000 + b"}"), "AD301"),
        (file_of(b'{"a": {}, "a": {}}'), "AD301"),
        (file_of(b'{"__metadata__": {"a": "1", "a": "2"}}'), "AD301"),
        (file_of({"__metadata__": {"a": 1}}), "AD301"),
        (file_of({"__metadata__": ["a"]}), "AD301"),
        (file_of(b'{"\\ud800": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"a"), "AD301"),
        (file_of(b'{"a": {"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'), "AD301"),
        (file_of({"a": entry("Q4")}, b"a"), "AD302"),
        (file_of({"a": entry(shape=[-1])}, b"a"), "AD302"),
        (file_of({"a": entry(shape=[True])}, b"a"), "AD302"),
        (file_of({"a": entry(shape=[1.0])}, b"a"), "AD302"),
        (file_of({"a": entry(shape=[1] * 65)}, b"a"), "AD302"),
        (file_of({"a": entry(offsets=[1, 0])}, b"a"), "AD302"),
        (file_of({"a": entry(shape=[2])}, b"a"), "AD302"),
        (file_of({"a": {**entry(), "extra": 1}}, b"a"), "AD302"),
        (file_of({"a": entry("F4", [3], [0, 2])}, b"aa"), "AD302"),
        (file_of({"a": entry(offsets=[1, 2])}, b"aa"), "AD302"),
        (file_of({"a": entry(), "b": entry()}, b"a"), "AD302"),
        (file_of({"a": entry()}, b""), "AD303"),
        (file_of({"a": entry()}, b"aa"), "AD303"),
    ],
)
def test_a_bad_header_is_refused_with_its_code(data: bytes, code: str) -> None:
    assert refusal(data) == code


def test_tensors_may_lie_in_any_order_and_be_empty() -> None:
    data = file_of(
        {
            "a": entry(offsets=[1, 2]),
            "b": entry(offsets=[0, 1]),
            "c": entry(shape=[0, 9], offsets=[2, 2]),
        },
        b"ab",
    )
    assert list(parse(data).tensors) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04" + bytes(40), "pickle"),
        (b"\x80\x02}q\x00." + bytes(40), "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
    ],
)
def test_the_message_names_a_file_of_another_kind(start: bytes, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(start)
    assert words in str(caught.value)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    text = b"{}".ljust(length)
    assert parse(struct.pack("<Q", length) + text).tensors == {}


def test_every_bad_tensor_is_named_and_not_only_the_first() -> None:
    data = file_of({name: entry("Q4") for name in "abc"}, b"")
    with pytest.raises(SourceError) as caught:
        parse(data)
    assert len(caught.value.findings) == 3


class Reader:
    """A file that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        return self.data[start : start + length]

    @property
    def total(self) -> int:
        return sum(length for _, length in self.ranges)


def test_a_small_header_takes_one_read_and_no_weights_beyond_it() -> None:
    data = safetensors_bytes({"w": ("F32", (1000, 1000))})
    reader = Reader(data)
    assert read_header(reader, len(data)).tensors["w"].shape == (1000, 1000)
    assert reader.ranges == [(0, FIRST_READ)]


def test_a_large_header_takes_two_reads_and_not_a_byte_more() -> None:
    data = safetensors_bytes({f"w{n:05}": ("U8", (8,)) for n in range(3000)})
    header_size = 8 + int.from_bytes(data[:8], "little")
    reader = Reader(data)
    assert len(read_header(reader, len(data)).tensors) == 3000
    assert len(reader.ranges) == 2
    assert reader.total == header_size


def test_a_header_longer_than_its_file_is_refused_before_it_is_read() -> None:
    reader = Reader(struct.pack("<Q", 30_000_000) + b"{")
    with pytest.raises(SourceError) as caught:
        read_header(reader, 9)
    assert caught.value.code == "AD303" and reader.total == 9


def test_a_source_that_returns_too_few_bytes_is_refused() -> None:
    data = safetensors_bytes({"w": ("U8", (8,))})
    with pytest.raises(SourceError) as caught:
        read_header(lambda start, length: data[start : start + 20], len(data))
    assert caught.value.code == "AD303"
