"""Sampled weights: rounding, the choice of tensors, digests and the table's text."""

from __future__ import annotations

import math
import random
import struct

import pytest
import torch
from adapterdock.registry.base.samples import (
    Sample,
    Samples,
    agreement,
    chosen,
    run,
    weight_digests,
)
from adapterdock.registry.files.precision import WIDTHS, packed, rounded, widen
from hypothesis import given
from hypothesis import strategies as st

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def torch_bits(values: torch.Tensor) -> list[int]:
    wide = values.to(torch.float32)
    wide = torch.where(wide.isnan(), torch.tensor(math.nan), wide)
    return [b & 0xFFFFFFFF for b in wide.view(torch.int32).tolist()]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_rounding_agrees_with_torch_on_random_bit_patterns(precision: str) -> None:
    """Every exponent, subnormals, infinities and NaNs of either sign: 100,000 patterns."""
    source = random.Random(1)
    bits = [source.getrandbits(32) for _ in range(60_000)]
    bits += [  # what float16 can hold, and near its edges
        (source.randrange(0x66, 0x90) << 23)
        | source.getrandbits(23)
        | (source.getrandbits(1) << 31)
        for _ in range(30_000)
    ]
    bits += [value << 12 for value in range(0, 1 << 20, 105)]  # ties
    bits += [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x477FEFFF, 0x477FF000]
    tensor = torch.tensor([b - (1 << 32) if b >> 31 else b for b in bits], dtype=torch.int32)
    expected = torch_bits(tensor.view(torch.float32).to(getattr(torch, precision)))
    assert list(rounded(bits, precision)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", sorted(WIDTHS))
def test_widening_agrees_with_torch_for_every_dtype(dtype: str) -> None:
    source = random.Random(2)
    width = WIDTHS[dtype]
    data = source.randbytes(4096 * width) if width > 1 else bytes(range(256))
    tensor = torch.frombuffer(bytearray(data), dtype=TORCH[dtype])
    assert list(widen(dtype, data)) == torch_bits(tensor)


def test_rounding_twice_is_not_rounding_once() -> None:
    source = random.Random(3)
    bits = [struct.unpack("<I", floats(source.uniform(-1, 1)))[0] for _ in range(1000)]
    twice = rounded(rounded(bits, "float16"), "bfloat16")
    assert twice != rounded(bits, "bfloat16")


@given(st.lists(st.integers(0, 50), max_size=4))
def test_a_run_lies_inside_its_tensor(shape: list[int]) -> None:
    first, count = run(shape)
    assert first >= 0 and first + count <= math.prod(shape)
    assert count == min(8, math.prod(shape))


def test_the_run_is_in_the_middle() -> None:
    assert run((4, 10)) == (16, 8)
    assert run((3,)) == (0, 3)
    assert run(()) == (0, 1)


def test_of_experts_only_a_few_of_a_few_layers_are_sampled() -> None:
    names = [f"layers.{i}.mlp.experts.{e}.w1.weight" for i in range(10) for e in range(20)]
    names += [f"layers.{i}.norm.weight" for i in range(10)]
    taken = chosen(names)
    assert [n for n in taken if "norm" in n] == sorted(n for n in names if "norm" in n)
    experts = {tuple(n.split(".")[1:5:3]) for n in taken if "experts" in n}
    assert experts == {(i, e) for i in ("0", "5", "9") for e in ("0", "10", "19")}


def test_digests_are_those_of_version_1() -> None:
    """Golden: these must never change."""
    table = {
        "b": Sample("F32", floats(1.0, -2.5, 1 / 3, 70000.0)),
        "a": Sample("BF16", struct.pack("<3H", 0x3F80, 0xBF81, 0x7FC1)),
        "c": Sample("F16", struct.pack("<2e", 0.1, 6e-8)),
    }
    digests = weight_digests(table)
    assert digests is not None
    assert digests.model_dump() == {
        "float32": "v1:sha256:d052680634b4ebbf796948f4baedaf6f64105e6134816c5b7703d6ede495457f",
        "bfloat16": "v1:sha256:ca36924d4657689f53b7573c8f4b7dda4cdfe215120a82b15ac97d721124020b",
        "float16": "v1:sha256:daa490dea636147fffce16847077466511c1e1e2214581b047e63bb02c266c05",
    }
    assert weight_digests(dict(reversed(table.items()))) == digests


def test_a_precision_that_holds_all_values_has_the_same_digest() -> None:
    digests = weight_digests({"w": Sample("BF16", struct.pack("<2H", 0x3F80, 0x4048))})
    assert digests is not None and digests.float32 == digests.bfloat16


SAMPLE = st.sampled_from(sorted(WIDTHS)).flatmap(
    lambda dtype: st.integers(0, 8).flatmap(
        lambda n: st.binary(min_size=n * WIDTHS[dtype], max_size=n * WIDTHS[dtype]).map(
            lambda data: Sample(dtype, data)
        )
    )
)
TABLE = st.dictionaries(st.text(max_size=12), SAMPLE, max_size=6)


@given(TABLE, TABLE)
def test_a_sample_table_is_equal_after_text_and_back(
    backbone: dict[str, Sample], heads: dict[str, Sample]
) -> None:
    table = Samples(backbone, heads)
    assert Samples.parse(str(table)) == table
    assert str(Samples(dict(reversed(backbone.items())), heads)) == str(table)


@given(st.one_of(st.text(), st.binary().map(lambda b: "samples/1:" + b.hex())))
def test_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Samples.parse(text)


def test_a_table_with_cut_values_is_a_value_error() -> None:
    import base64
    import bz2

    for content in (
        b'[[["a","F32",2]],[]]\n1234567',
        b'[[["a","F32",2]],[]]\n123456789',
        b'[[["a","X9",1]],[]]\n1234',
        b'[[["a","F32",-1]],[]]\n',
        b'[[["a","F32",99]],[]]\n' + bytes(396),
        b'[[["a","F32",1],["a","F32",1]],[]]\n12345678',
        b"[[],[],[]]\n",
        b"{}",
        b"[" * 100_000,
    ):
        text = "samples/1:" + base64.b64encode(bz2.compress(content)).decode()
        with pytest.raises(ValueError, match="damaged"):
            Samples.parse(text)


def test_a_bomb_is_not_inflated() -> None:
    import base64
    import bz2

    text = base64.b64encode(bz2.compress(bytes(65 << 20))).decode()
    with pytest.raises(ValueError, match="damaged"):
        Samples.parse("samples/1:" + text)


def test_the_golden_text_of_a_table() -> None:
    table = Samples(
        {"w": Sample("F32", floats(1.0, 2.0))}, {"lm_head": Sample("BF16", b"\x80\x3f")}
    )
    text = "samples/1:QlpoOTFBWSZTWcoLe10AABHfwEAQEAQ5ANEAAAqmRgCAQAAgADFABiNNN"
    text += "Gg1T9SD1PFPUyGynJsRGJdlFwwCX2g2ih0mCoQ3bR1rOZl6Pdfi7kinChIZQW9roA=="
    assert str(table) == text


def test_precision_is_the_narrowest_and_none_for_a_mix() -> None:
    wide, brain, half = Sample("F32", floats(1)), Sample("BF16", b"\0\0"), Sample("F16", b"\0\0")
    assert Samples({"a": wide}).precision == "float32"
    assert Samples({"a": wide, "b": brain}).precision == "bfloat16"
    assert Samples({"a": wide}, {"b": half}).precision == "float16"
    assert Samples({"a": brain, "b": half}).precision is None
    assert Samples({"a": brain, "b": Sample("F8_E5M2", b"\0")}).precision == "bfloat16"


def test_each_tensor_is_compared_in_its_own_dtype() -> None:
    declared = Sample("F32", floats(1 / 3, 0.1))
    brain = Sample("BF16", b"".join(p[2:] for p in _words(packed(declared.bits("bfloat16")))))
    upcast = Sample("F32", packed(declared.bits("bfloat16")))
    other = Sample("F32", floats(1 / 3, 0.2))
    found = {"same": declared, "brain": brain, "upcast": upcast, "other": other}
    result = agreement(dict.fromkeys([*found, "gone"], declared), found)
    assert result.same == ("brain", "same", "upcast")
    assert result.different == ("other",)
    assert result.absent == ("gone",)


def _words(data: bytes) -> list[bytes]:
    return [data[i : i + 4] for i in range(0, len(data), 4)]
