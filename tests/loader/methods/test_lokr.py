"""LoKr compared with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoKrConfig, get_peft_model
from support.lycoris import check_module_dropout, check_rank_dropout
from support.method_oracle import (
    check_answers,
    check_gradients,
    check_half_precision,
    check_quantised_and_offloaded,
    check_sums,
    check_untrained_is_refused,
    fill,
)
from support.near import close
from support.peft_adapters import OneLayer, Saved, adapted, logits, one_layer, tiny_conv, tiny_llama

CONVOLUTIONS = ["first", "grouped", "line", "head"]
LLAMA = {"target_modules": ["q_proj", "down_proj"], "r": 1, "alpha": 3}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear", "r": 1, "alpha": 3}),
    "whole factors": (tiny_llama, {"target_modules": "all-linear", "r": 20, "alpha": 30}),
    "both of low rank": (
        tiny_llama,
        {"target_modules": "all-linear", "r": 1, "decompose_both": True, "decompose_factor": 4},
    ),
    "a rank of half the size is not low": (
        tiny_llama,
        {"target_modules": ["q_proj", "up_proj"], "r": 2, "decompose_both": True},
    ),
    "a factor that divides nothing": (
        tiny_llama,
        {"target_modules": ["q_proj", "up_proj"], "r": 1, "decompose_factor": 7},
    ),
    "a factor above the root": (
        tiny_llama,
        {"target_modules": ["q_proj", "up_proj"], "r": 1, "decompose_factor": 8},
    ),
    "patterns": (
        tiny_llama,
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "up_proj": 1},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 1},
        },
    ),
    "lycoris init": (tiny_llama, {**LLAMA, "init_weights": "lycoris"}),
    "conv": (tiny_conv, {"target_modules": CONVOLUTIONS, "r": 1}),
    "whole conv": (tiny_conv, {"target_modules": CONVOLUTIONS, "r": 8}),
    "effective conv": (
        tiny_conv,
        {"target_modules": ["first", "grouped"], "r": 1, "use_effective_conv2d": True},
    ),
    "dropouts": (
        tiny_llama,
        {**LLAMA, "module_dropout": 0.5, "rank_dropout": 0.5, "rank_dropout_scale": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    check_answers(make, tmp_path / "it", LoKrConfig, **config)


@pytest.mark.parametrize("r", [1, 6])
@pytest.mark.parametrize("layer", ["linear", "conv", "grouped", "line"])
def test_sums_match_dense_arithmetic(layer: str, r: int, tmp_path: Path) -> None:
    check_sums(layer, tmp_path, LoKrConfig, r=r, alpha=r)


def test_effective_kernel_of_one_dimension_is_a_kronecker_product(tmp_path: Path) -> None:
    """PEFT cannot run these (torch.kron raises), so the expected output is computed here."""
    base = one_layer("line")
    settings = {"target_modules": ["layer"], "r": 1, "use_effective_conv2d": True}
    trained = get_peft_model(one_layer("line"), LoKrConfig(**settings))
    layer: Any = trained.base_model.model.layer
    for name, parameter in layer.named_parameters():
        if "lokr_" in name:
            torch.nn.init.normal_(parameter)
    trained.save_pretrained(str(tmp_path / "it"))
    w1 = layer.lokr_w1.default.data
    t2, a, b = (p.default.data for p in (layer.lokr_t2, layer.lokr_w2_a, layer.lokr_w2_b))
    w2 = torch.einsum("ijk,ip,jr->prk", t2[..., 0], a, b)
    dense = torch.stack([torch.kron(w1, w2[..., n]) for n in range(w2.shape[-1])], -1) * 8

    model = adapted(base, Saved(tmp_path / "it", logits(base)))
    delta = torch.nn.functional.conv1d(base.example, dense, padding=1)
    assert close(logits(model), logits(base) + delta)


def test_half_precision_base_matches_peft(tmp_path: Path) -> None:
    check_half_precision(tmp_path / "it", LoKrConfig, **LLAMA)


def test_quantised_and_offloaded_bases_match_peft(tmp_path: Path) -> None:
    check_quantised_and_offloaded(tmp_path / "it", LoKrConfig, **LLAMA)


@pytest.mark.parametrize("factor", ["w1_a", "w1_b", "w2_a", "w2_b", "t2"])
def test_adapter_with_a_zero_factor_is_refused(factor: str, tmp_path: Path) -> None:
    check_untrained_is_refused(
        lambda: OneLayer(torch.nn.Conv2d(12, 12, 3), torch.ones(1, 12, 5, 5)),
        tmp_path / "it",
        LoKrConfig,
        fill(0.0, f"lokr_{factor}"),
        target_modules=["layer"],
        r=1,
        decompose_both=True,
        use_effective_conv2d=True,
    )


def test_gradients_match_peft(tmp_path: Path) -> None:
    check_gradients(tmp_path / "it", LoKrConfig, "lokr_", **LLAMA)


def test_module_dropout_acts_only_in_training(tmp_path: Path) -> None:
    check_module_dropout(tmp_path / "it", LoKrConfig)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_rank_dropout_matches_peft_in_training(layer: str, scaled: bool, tmp_path: Path) -> None:
    check_rank_dropout(layer, tmp_path / "it", LoKrConfig, torch.float32, rank_dropout_scale=scaled)
