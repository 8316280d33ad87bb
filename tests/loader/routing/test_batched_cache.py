"""What is gathered for a batch's rows is kept within its bound, and never used stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.methods.vera import ProjectedRows
from support.mixed_rows import LINEAR, alone, dress
from support.near import HALVES, close, differs
from support.peft_adapters import ids, tiny_llama

NAMES: list[str | None] = ["a", None, "b", "a"]


def dressed(folder: Path, method: str) -> AdaptedModel:
    model = AdaptedModel(tiny_llama())
    for name, (kind, config) in zip("ab", LINEAR[method], strict=True):
        dress(model, folder, name, kind, config)
    return model


def together(model: AdaptedModel, names: list[str | None] = NAMES) -> torch.Tensor:
    return model(input_ids=ids(4), adapter_names=names).logits


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "vera", "lokr", "oft", "tokens"])
@torch.no_grad()
def test_tensors_that_change_in_place_are_seen_by_the_next_batch(
    tmp_path: Path, method: str
) -> None:
    model = dressed(tmp_path, method)
    before = together(model)
    for parameter in model._host.adapters.by_name["a"].resident.parameters.values():
        parameter.mul_(1.5)
    for parameter in model._host.adapters.by_name["b"].resident.parameters.values():
        parameter.data = parameter.data * 0.5  # another memory, the same version
    after = together(model)
    assert close(after, alone(model, {"input_ids": ids(4)}, NAMES))
    assert differs(after[0], before[0])
    assert differs(after[2], before[2])


@torch.no_grad()
def test_dora_rows_see_another_weight_of_the_base(tmp_path: Path) -> None:
    model = dressed(tmp_path, "dora")
    together(model)
    model.base_model.model.layers[0].self_attn.q_proj.weight.add_(0.1)
    expected = alone(model, {"input_ids": ids(4)}, NAMES)
    assert close(together(model), expected)


@torch.no_grad()
def test_a_batch_larger_than_the_limit_is_right_and_stays_within_it(tmp_path: Path) -> None:
    model = dressed(tmp_path, "lora")
    expected = together(model)
    cache = model._host.adapters.gathered
    whole = cache.nbytes
    assert whole > 0
    for limit in (whole // 2, 0):
        cache.clear()
        cache.limit = limit
        for _ in range(2):
            assert torch.equal(together(model), expected)
            assert cache.nbytes <= limit
    cache.limit = whole
    together(model)
    together(model, ["b", None, "a", "b"])
    assert cache.nbytes <= whole


@torch.no_grad()
def test_adapters_of_one_projection_share_it(tmp_path: Path) -> None:
    for method, groups in (("vera", 1), ("vera of two seeds", 2)):
        model = dressed(tmp_path / method.replace(" ", "_"), method)
        together(model)
        (gathered,) = model._host.adapters.gathered._kept.values()
        site = next(s for s in gathered.of if s.name.endswith("layers.0.self_attn.q_proj"))
        found = gathered.of[site]
        assert found is not None
        (delta,) = found.deltas
        assert isinstance(delta, ProjectedRows)
        assert len(delta.groups) == groups
        assert found.nbytes < 4 * 4 * (6 + 16 + 1)  # vectors of four rows, and no matrix


@torch.no_grad()
def test_a_module_that_some_rows_replace_runs_with_each_rows_weights(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_llama())
    whole: dict[str, Any] = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    dress(model, tmp_path, "whole", None, whole)
    dress(
        model,
        tmp_path,
        "turned",
        peft.OFTConfig,
        {"r": 0, "oft_block_size": 4, "target_modules": ["lm_head"]},
    )
    dress(
        model,
        tmp_path,
        "scaled",
        peft.IA3Config,
        {"target_modules": ["lm_head"], "feedforward_modules": ["lm_head"]},
    )
    model.define_composition("both", {"whole": 1.0, "turned": 1.0, "scaled": -0.5})
    names: list[str | None] = ["whole", "turned", "both", None, "scaled", "both"]
    inputs = {"input_ids": ids(len(names))}
    rows = model(**inputs, adapter_names=names).logits
    assert close(rows, alone(model, inputs, names))
    assert differs(rows[0], rows[2])


@torch.no_grad()
def test_mixed_rows_run_with_merged_adapters(tmp_path: Path) -> None:
    model = dressed(tmp_path, "lora")
    dress(model, tmp_path, "c", None, {"target_modules": ["q_proj", "o_proj"]})
    inputs, names = {"input_ids": ids(3)}, ["a", "b", "a"]
    expected = alone(model, inputs, [None, None, None])
    for row, name in enumerate(names):
        together_with = model(input_ids=ids(3)[row : row + 1], adapter={name: 1.0, "c": 1.0})
        expected[row] = together_with.logits[0]
    model.merge_adapter("c")
    got = model(**inputs, adapter_names=names).logits
    assert close(got, expected)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "lokr", "oft"])
def test_factors_gathered_in_one_mode_serve_calls_in_any_mode(tmp_path: Path, method: str) -> None:
    model = dressed(tmp_path, method)
    inputs = {"input_ids": ids(4)}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = together(model)
        assert close(half, alone(model, inputs, NAMES), HALVES, torch.bfloat16)
    model.base_model.requires_grad_(True)
    full = together(model)
    full.sum().backward()
    with torch.no_grad():
        assert close(full, alone(model, inputs, NAMES))


@pytest.mark.parametrize("reentrant", [True, False])
def test_rows_are_the_same_when_checkpointing_runs_them_again(
    tmp_path: Path, reentrant: bool
) -> None:
    model = AdaptedModel(tiny_llama())
    for name, (kind, config) in zip("ab", LINEAR["dora"], strict=True):
        dress(model, tmp_path, name, kind, config, trainable=True)
    model.train()

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        embeds = model.base_model.get_input_embeddings()(ids(4)).detach().requires_grad_()
        model(inputs_embeds=embeds, adapter_names=["a", None, "b", "a"]).logits.sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.base_model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again = gradients()
    assert plain.keys() == again.keys() and plain
    assert all(close(plain[name], again[name]) for name in plain)
