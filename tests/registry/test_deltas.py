"""Sizes of changes, and how alike they are: beside the full matrices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.checks.check_adapter import plan_on
from adapterdock.registry.deltas import LOW_RANK, Deltas
from adapterdock.registry.files.arrays import square_sum
from adapterdock.registry.read_facts import gather_adapter
from adapterdock.registry.sources.open import open_source
from safetensors.torch import save_file
from support.builders import lora_config

PREFIX = "base_model.model."
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def write(
    folder: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32, **f: Any
) -> Deltas:
    folder.mkdir(parents=True, exist_ok=True)
    config = {**lora_config(r=4), "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **f}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    named = {f"{PREFIX}{name}": value.to(dtype).contiguous() for name, value in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    opened = open_source(Source.parse(str(folder)), directory=folder)
    facts = gather_adapter("a", opened, Where())
    plan = plan_on(facts, None)
    assert plan is not None
    return Deltas.of(facts, plan, {path: folder / path for path in opened.files()})


def pair(seed: int, r: int = 4, inner: int = 24, outer: int = 16) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        "lora_A.weight": torch.randn(r, inner, generator=made),
        "lora_B.weight": torch.randn(outer, r, generator=made),
    }


def at(module: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{module}.{name}": value for name, value in tensors.items()}


def full(tensors: Mapping[str, torch.Tensor], scale: float, dtype: torch.dtype) -> torch.Tensor:
    a, b = (tensors[f"lora_{x}.weight"].to(dtype).double() for x in "AB")
    return scale * b @ a


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_that_of_the_full_matrix(tmp_path: Path, dtype: torch.dtype) -> None:
    deltas = write(tmp_path, {**at(Q, pair(1)), **at(V, pair(2))}, dtype)
    assert [*deltas.sites] == [Q, V] and not deltas.left_out
    for module, seed in ((Q, 1), (V, 2)):
        expected = full(pair(seed), 2.0, dtype).norm().item()
        assert deltas.read(module).norm == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ranks", [(4, 4), (2, 8)])
def test_the_inner_product_is_that_of_the_full_matrices(
    tmp_path: Path, ranks: tuple[int, int]
) -> None:
    first, second = (pair(n, r) for n, r in enumerate(ranks))
    one, other = (
        write(tmp_path / str(n), at(Q, tensors), r=r)
        for n, (tensors, r) in enumerate(zip((first, second), ranks, strict=True))
    )
    left, right = one.read(Q), other.read(Q)
    expected = (
        full(first, 8 / ranks[0], torch.float32) * full(second, 8 / ranks[1], torch.float32)
    ).sum()
    assert left.times(right) == pytest.approx(expected.item(), rel=1e-9)
    assert left.shape == right.shape == (16, 24)
    cosine = left.times(left) / (left.norm * left.norm)
    assert cosine == pytest.approx(1)


def test_what_is_not_measured_is_said_with_its_reason(tmp_path: Path) -> None:
    dora = {**pair(1), "lora_magnitude_vector": torch.ones(16)}
    saved = {"model.norm.weight": torch.ones(24)}
    deltas = write(tmp_path, {**at(Q, dora), **saved}, use_dora=True, modules_to_save=["norm"])
    assert deltas.notes == {Q: LOW_RANK}
    assert deltas.left_out == {"model.norm": "the module is replaced"}
    ia3 = {f"{V}.ia3_l": torch.ones(16, 1)}
    other = write(
        tmp_path / "ia3", ia3, peft_type="IA3", feedforward_modules=[], target_modules=["v_proj"]
    )
    assert other.left_out == {V: "IA3 is not measured"} and not other.sites


def test_a_convolution_is_measured_as_a_matrix(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(1)
    tensors = {
        "lora_A.weight": torch.randn(4, 3, 5, 5, generator=made),
        "lora_B.weight": torch.randn(8, 4, 1, 1, generator=made),
    }
    deltas = write(tmp_path, at(Q, tensors))
    a, b = tensors["lora_A.weight"], tensors["lora_B.weight"]
    expected = 2 * (b.reshape(8, 4) @ a.reshape(4, -1)).norm().item()
    assert deltas.read(Q).norm == pytest.approx(expected, rel=1e-5)


def test_a_large_tensor_is_summed_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.registry.files.arrays.CHUNK", 7)
    deltas = write(tmp_path, at(Q, pair(1)), torch.bfloat16)
    (header,) = deltas.facts.headers.values()
    place = tmp_path / "adapter_model.safetensors"
    name = f"{PREFIX}{Q}.lora_A.weight"
    stored = pair(1)["lora_A.weight"].bfloat16().double()
    assert square_sum(place, header, name) == pytest.approx((stored**2).sum().item(), rel=1e-9)
    assert numpy.allclose(deltas.read(Q).a, stored.numpy())
    place.write_bytes(place.read_bytes()[:-300])
    with pytest.raises(OSError, match="shorter"):
        square_sum(place, header, name)
