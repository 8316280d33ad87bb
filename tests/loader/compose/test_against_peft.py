"""PEFT's ways of combining, with its results: as near as its own float32 is to its float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.compose.sparsify import keep_masked, random_mask
from support.combinations import (
    FIXED,
    RANDOM,
    digest_of,
    is_pefts,
    options_of,
    peft_combines,
    with_adapters,
)
from support.near import differs
from support.peft_adapters import Saved, ids, logits, peft_saves, tiny_gpt2, tiny_llama

Pairs = dict[str, tuple[Any, Saved, Saved]]
SAME_RANK = ["llama", "llama-apart", "gpt2", "embedded"]
ANY_RANK = [*SAME_RANK, "ranks"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Two adapters each: on the same modules, on others, on transposed weights, on an embedding,
    and of two ranks."""
    root = tmp_path_factory.mktemp("pairs")

    def pair(name: str, base: Any, first: dict[str, Any], second: dict[str, Any]) -> Any:
        one = peft_saves(base(), root / name / "one", seed=1, **first)
        two = peft_saves(base(), root / name / "two", seed=2, **second)
        return base, one, two

    every = {"target_modules": "all-linear", "lora_alpha": 6}
    return {
        "llama": pair("llama", tiny_llama, every, {"target_modules": "all-linear"}),
        "llama-apart": pair(
            "apart",
            tiny_llama,
            {"target_modules": ["q_proj", "v_proj"]},
            {"target_modules": ["v_proj", "up_proj"], "lora_alpha": 3},
        ),
        "gpt2": pair(
            "gpt2",
            tiny_gpt2,
            {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
            {"target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_alpha": 5},
        ),
        "embedded": pair(
            "embedded",
            tiny_llama,
            {"target_modules": ["embed_tokens", "q_proj"]},
            {"target_modules": ["embed_tokens", "q_proj"], "lora_alpha": 2},
        ),
        "ranks": pair(
            "ranks",
            tiny_llama,
            {"target_modules": ["q_proj", "v_proj"], "r": 2},
            {"target_modules": ["v_proj", "up_proj"], "r": 5},
        ),
    }


def on_factors(method: str) -> bool:
    return method != "cat" and not method.endswith("svd")


def cases() -> Iterator[tuple[str, str]]:
    for method in FIXED:
        for name in SAME_RANK if on_factors(method) else ANY_RANK:
            yield method, name


@pytest.mark.parametrize(("method", "name"), list(cases()))
@pytest.mark.parametrize("second", [0.4, -0.6])
def test_combinations_match_pefts(method: str, name: str, second: float, pairs: Pairs) -> None:
    base, one, two = pairs[name]
    options = options_of(method)
    model = with_adapters(base(), one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [0.7, second], "mix", method, **options)
    found = logits(model, adapter="mix")
    assert is_pefts(found, base(), [one.folder, two.folder], [0.7, second], method, **options)
    assert differs(found, logits(model), 1e-2)


@pytest.mark.parametrize("method", ["ties", "ties_svd"])
def test_signs_are_elected_by_frequency_on_request(method: str, pairs: Pairs) -> None:
    base, one, two = pairs["llama"]
    options = {**options_of(method), "majority_sign_method": "frequency"}
    model = with_adapters(base(), one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "mix", method, **options)
    found = logits(model, adapter="mix")
    assert is_pefts(found, base(), [one.folder, two.folder], [0.7, 0.4], method, **options)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "total", method, **options_of(method))
    assert differs(logits(model, adapter="total"), found)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_an_svd_has_the_requested_rank(rank: int, pairs: Pairs) -> None:
    base, one, two = pairs["ranks"]
    model = with_adapters(base(), one=one, two=two)
    for method in ("svd", "ties_svd"):
        options = {**options_of(method), "svd_rank": rank}
        model.add_weighted_adapter(["one", "two"], [0.7, 0.4], method, method, **options)
        found = logits(model, adapter=method)
        assert is_pefts(found, base(), [one.folder, two.folder], [0.7, 0.4], method, **options)
        assert model.adapters[method].rank <= rank


@pytest.mark.parametrize("clamp", [0.5, 0.9])
def test_an_svd_is_clamped_as_pefts_is(clamp: float, pairs: Pairs) -> None:
    base, one, two = pairs["llama"]
    model = with_adapters(base(), one=one, two=two)
    for method in ("svd", "magnitude_prune_svd"):
        options = {**options_of(method), "svd_clamp": clamp}
        model.add_weighted_adapter(["one", "two"], [0.7, 0.4], method, method, **options)
        found = logits(model, adapter=method)
        assert is_pefts(found, base(), [one.folder, two.folder], [0.7, 0.4], method, **options)


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_random_method_is_pefts_under_the_same_masks(
    method: str, name: str, pairs: Pairs
) -> None:
    """PEFT draws from the global generator; here it is handed our masks, in the order in which
    it asks: module by module, A before B, adapter by adapter."""
    base, one, two = pairs[name]
    options = options_of(method)
    model = with_adapters(base(), one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "mix", method, **options)

    asked: list[tuple[str, str]] = []
    named = {"one": one, "two": two}
    digests = {n: digest_of(model, n) for n in named}
    at = peft_combines(base(), [one.folder, two.folder], [0.7, 0.4], "svd")
    wanted_names: list[tuple[str, str, bool]] = []
    for path, module in at.base_model.model.named_modules():
        having = [n for n in named if n in getattr(module, "lora_A", {})]
        if having and "mix" in module.lora_A:
            flipped = bool(module.fan_in_fan_out)
            parts = ["weight"] if method.endswith("svd") else ["lora_A.weight", "lora_B.weight"]
            turned = flipped and method.endswith("svd")
            wanted_names += [(n, f"{path}.{part}", turned) for part in parts for n in having]

    def keep(tensor: torch.Tensor, density: float, rescale: bool) -> torch.Tensor:
        adapter, key, turned = wanted_names[len(asked) % len(wanted_names)]
        asked.append((adapter, key))
        mask = random_mask(tensor.numel(), density, options["seed"], digests[adapter], key)
        ours = tensor.T if turned else tensor
        pruned = keep_masked(ours, mask.reshape(ours.shape), density)
        return pruned.T if turned else pruned

    folders, weights = [one.folder, two.folder], [0.7, 0.4]
    found = logits(model, adapter="mix")
    assert is_pefts(found, base(), folders, weights, method, keep=keep, **options)
    assert len(asked) == 2 * len(wanted_names) == 2 * len(set(asked)), "in float64, then float32"


def test_generation_with_a_combination_is_pefts(pairs: Pairs) -> None:
    base, one, two = pairs["llama"]
    model = with_adapters(base(), one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "mix", "cat")
    peft = peft_combines(base(), [one.folder, two.folder], [1.0, 1.0], "cat")
    options = {"max_new_tokens": 8, "do_sample": False}
    ours = model.generate(ids(), adapter="mix", **options)
    assert torch.equal(ours, peft.generate(input_ids=ids(), **options))


def test_several_adapters_are_combined_as_two_are(pairs: Pairs, tmp_path: Path) -> None:
    base, one, two = pairs["llama"]
    three = peft_saves(base(), tmp_path / "three", seed=3, target_modules=["q_proj", "lm_head"])
    model = with_adapters(base(), one=one, two=two, three=three)
    weights = [0.5, 0.3, -0.2]
    folders = [one.folder, two.folder, three.folder]
    for method in ("linear", "ties", "svd"):
        options = options_of(method)
        model.add_weighted_adapter(["one", "two", "three"], weights, method, method, **options)
        assert is_pefts(logits(model, adapter=method), base(), folders, weights, method, **options)
