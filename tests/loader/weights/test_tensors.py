"""Reading weights: one buffer, hashed, checked and sliced."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import adapterdock.loader.weights.buffer as buffer_module
import pytest
import torch
from adapterdock.loader.weights.placement import Placement
from adapterdock.loader.weights.tensors import AdapterTensors, read_bytes, read_file
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import AdapterdockError, IntegrityError, SourceError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from support.peft_adapters import tensors_of

CPU = torch.device("cpu")


def some() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"t{i}": torch.randn(3, i + 1, generator=generator) for i in range(5)}


def test_a_file_and_its_bytes_give_the_same_tensors(tmp_path: Path) -> None:
    tensors = some()
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    raw = (tmp_path / "a.safetensors").read_bytes()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    for read in (
        read_file(tmp_path / "a.safetensors", digest),
        read_bytes(raw, digest.upper().replace("SHA256", "sha256")),
    ):
        read.verify()
        assert read.header.tensors.keys() == tensors.keys()
        assert all(torch.equal(read.host(name), tensors[name]) for name in tensors)


def test_a_wrong_digest_is_refused_with_both_digests(tmp_path: Path) -> None:
    save_file(some(), tmp_path / "a.safetensors")
    read = read_file(tmp_path / "a.safetensors", "sha256:" + "0" * 64)
    with pytest.raises(IntegrityError) as caught:
        read.verify()
    assert caught.value.code == "AD702"
    assert caught.value.findings[0].expected == "sha256:" + "0" * 64


def test_a_damaged_file_is_reported_by_its_digest_first(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not at all")
    with pytest.raises(IntegrityError):
        read_file(tmp_path / "a.safetensors", "sha256:" + "0" * 64)
    with pytest.raises(SourceError):
        read_file(tmp_path / "a.safetensors")


def test_a_missing_file_and_a_folder_are_source_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SourceError) as caught:
            read_file(path)
        assert caught.value.code == "AD701"


def test_changing_the_file_later_does_not_change_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"big": torch.randn(1 << 19)}  # large enough for the mapped-memory allocation
    save_file(tensors, path)
    read = read_file(path)
    with path.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 1000)
        stream.truncate(2000)
    assert torch.equal(read.host("big"), tensors["big"])


def test_changing_the_bytes_later_does_not_change_the_weights() -> None:
    mine = bytearray(save({"a": torch.ones(3)}))
    read = read_bytes(mine)
    mine[-12:] = bytes(12)
    assert torch.equal(read.host("a"), torch.ones(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_with_non_finite_values_are_named(bad: float, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in some().items()}
    read = tensors_of(tensors)
    assert read.findings(dict.fromkeys(tensors, torch.float32)) == []
    tensors["t3"][1, 2] = bad
    (finding,) = tensors_of(tensors).findings(dict.fromkeys(tensors, torch.float32))
    assert finding.code == "AD703"
    assert "'t3'" in finding.message
    assert "'t2'" not in finding.message


def test_a_value_too_large_for_float16_is_accepted_in_bfloat16() -> None:
    read = tensors_of({"a": torch.tensor([1.0, 1e5]), "b": torch.ones(2)})
    (finding,) = read.findings({"a": torch.float16, "b": torch.float16})
    assert finding.code == "AD706"
    assert "'a'" in finding.message
    assert read.findings({"a": torch.bfloat16, "b": torch.bfloat16}) == []


def test_integers_are_accepted_as_counters_only() -> None:
    read = tensors_of({"a": torch.ones(2), "n": torch.tensor(3)})
    (finding,) = read.findings({"a": torch.float32, "n": torch.float32})
    assert finding.code == codes.TENSOR_DTYPE.id
    assert read.findings({"a": torch.float32, "n": torch.int64}) == []


def placed_in(
    read: AdapterTensors, dtype: torch.dtype, *, own: bool = False
) -> dict[str, torch.Tensor]:
    placed = read.place(dict.fromkeys(read.header.tensors, Placement(dtype, CPU)), own=own)
    read.verify()
    return placed


def storages(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors}


def test_neighbouring_tensors_share_one_storage_and_one_conversion() -> None:
    tensors = some()
    read = tensors_of(tensors)
    assert storages(placed_in(read, torch.float32).values()) == storages([read.data])
    half = placed_in(tensors_of(tensors), torch.bfloat16)
    assert len(storages(half.values())) == 1
    assert all(torch.equal(half[n], tensors[n].to(torch.bfloat16)) for n in tensors)
    read = tensors_of(tensors)
    own = placed_in(read, torch.float32, own=True)
    own["t0"].fill_(7)
    assert torch.equal(read.host("t0"), tensors["t0"])


def test_tensors_cannot_be_placed_twice() -> None:
    read = tensors_of(some())
    placed_in(read, torch.float32)
    with pytest.raises(RuntimeError):
        placed_in(read, torch.float32)


@pytest.mark.parametrize("count", [1 << 19, (1 << 19) + 1, 700_001, 1_234_567])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_values_are_widened_in_place(count: int, stored: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    tensors = {
        "a": torch.randn(count, generator=generator).to(stored),
        "b": torch.randn(3, generator=generator).to(stored),
    }
    read = tensors_of(tensors)
    placed = placed_in(read, torch.float32)
    assert all(torch.equal(placed[n], tensors[n].float()) for n in tensors)
    room = placed["a"].untyped_storage()
    assert room.data_ptr() < read.data.data_ptr() < room.data_ptr() + room.nbytes()
    assert room.nbytes() == 2 * read.data.numel()


def test_the_widened_bytes_are_the_hashed_ones() -> None:
    raw = save({"a": torch.randn(1 << 20).bfloat16()})
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    placed_in(read_bytes(raw, digest), torch.float32)
    with pytest.raises(IntegrityError):
        placed_in(read_bytes(raw, "sha256:" + "0" * 64), torch.float32)


DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(DTYPES, st.lists(st.integers(0, 4), max_size=3)), max_size=6),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_mix_of_dtypes_and_shapes_is_read_unchanged(
    kinds: list[tuple[torch.dtype, list[int]]], target: torch.dtype
) -> None:
    tensors = {
        f"t{i}": torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
        for i, (dtype, shape) in enumerate(kinds)
    }
    for own in (False, True):
        read = tensors_of(tensors)
        wanted = {
            n: Placement(target if t.is_floating_point() else t.dtype, CPU)
            for n, t in tensors.items()
        }
        assert read.findings({n: p.dtype for n, p in wanted.items()}) == []
        placed = read.place(wanted, own=own)
        read.verify()
        assert placed.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(placed[name], tensor.to(wanted[name].dtype))


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=64), st.integers(0, 120))
def test_any_bytes_are_read_or_refused_with_findings(noise: bytes, at: int) -> None:
    raw = bytearray(save({"a": torch.ones(2, 2)}))
    raw[at : at + len(noise)] = noise
    try:
        read = read_bytes(bytes(raw))
        read.findings(dict.fromkeys(read.header.tensors, torch.float32))
    except AdapterdockError as error:
        assert error.findings


def test_errors_of_background_reading_are_raised_at_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"big": torch.randn(1 << 19)}, path)

    def broken(*_: object) -> None:
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(buffer_module, "_finish", broken)
    read = read_file(path, "sha256:" + "0" * 64, wait=False)
    for use in (
        read.verify,
        lambda: read.host("big"),
        lambda: read.findings({"big": torch.float32}),
        lambda: read.place({"big": Placement(torch.float32, CPU)}),
    ):
        with pytest.raises(SourceError, match="the disk is gone"):
            use()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inference", [True, False])
def test_background_reading_gives_the_same_values_in_any_dtype(
    tmp_path: Path, inference: bool, dtype: torch.dtype
) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {name: torch.randn(700, 700).bfloat16() for name in "abc"}
    save_file(tensors, path)
    with torch.inference_mode(inference):
        read = read_file(path, wait=False)
        placed = placed_in(read, dtype)
    for name, tensor in tensors.items():
        assert torch.equal(placed[name], tensor.to(dtype))
