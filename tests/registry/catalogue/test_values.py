"""Values that no adapter may have, found in the bytes of every dtype."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from adapterdock.registry.catalogue.values import CHUNK, Looked, has_special, look
from adapterdock.registry.files.header import DTYPE_BITS, read_local_header
from support.builders import safetensors_bytes

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_each_value_of_a_dtype_is_judged_as_torch_judges_it(dtype: str) -> None:
    width = DTYPE_BITS[dtype] // 8
    ends = [bytes([low, high]) for high in range(256) for low in (0, 1, 0x7F, 0x80, 0xEF, 0xF0)]
    ends += [bytes([low, high]) for high in (0x7F, 0xFF) for low in range(256)]
    for end in ends:
        raw = (b"\0" * 8 + end)[-width:]
        value = torch.frombuffer(bytearray(raw), dtype=TORCH[dtype]).to(torch.float64)
        assert has_special(raw, dtype) != bool(torch.isfinite(value).all()), raw
        assert has_special(raw * 3 + b"\0" * width, dtype) == has_special(raw, dtype)


def test_the_parts_of_a_complex_value_are_judged_each() -> None:
    assert not has_special(struct.pack("<4f", 1, 2, 3, 4), "C64")
    assert has_special(struct.pack("<4f", 1, 2, 3, float("nan")), "C64")


def test_bits_of_two_neighbours_are_not_taken_for_one_value() -> None:
    # 0x7F?? of one bfloat16 and 0x80 of the next: both are finite
    assert not has_special(bytes([0x00, 0x7F, 0x80, 0x00]), "BF16")


@pytest.mark.parametrize("dtype", ["I8", "U8", "I16", "I32", "I64", "U64", "BOOL", "F4"])
def test_every_value_of_other_dtypes_is_finite(dtype: str) -> None:
    assert not has_special(b"\xff" * 16, dtype)


def test_a_file_is_looked_at_tensor_by_tensor(tmp_path: Path) -> None:
    count = CHUNK // 2 + 8  # more than one chunk
    nan = bytearray(2 * count)
    nan[-1], nan[-2] = 0x7F, 0xC0
    path = tmp_path / "weights.safetensors"
    path.write_bytes(
        safetensors_bytes(
            {"none": ("F32", (2,)), "nan": ("BF16", (count,)), "signed": ("F16", (2,))},
            overrides={"none": bytes(8), "nan": bytes(nan), "signed": b"\0\x80\0\0"},
        )
    )
    found = look({"w": read_local_header(path)}, lambda _: path)
    assert found == Looked(("nan",), frozenset({("w", "none"), ("w", "signed")}))
