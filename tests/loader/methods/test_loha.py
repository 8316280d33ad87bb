"""LoHa compared with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig
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
from support.peft_adapters import tiny_conv, tiny_llama

CONVOLUTIONS = ["first", "grouped", "line", "head"]
LLAMA = {"target_modules": ["q_proj", "down_proj"], "r": 3, "alpha": 5}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear", "r": 3, "alpha": 5}),
    "more pairs of ranks than columns": (tiny_llama, {**LLAMA, "r": 5}),
    "patterns": (
        tiny_llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 3},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 1},
        },
    ),
    "conv": (tiny_conv, {"target_modules": CONVOLUTIONS, "r": 3}),
    "effective conv": (
        tiny_conv,
        {"target_modules": CONVOLUTIONS, "r": 3, "use_effective_conv2d": True},
    ),
    "effective conv of as many ranks as outputs": (
        tiny_conv,
        {"target_modules": ["first", "line"], "r": 6, "use_effective_conv2d": True},
    ),
    "saved head": (tiny_llama, {**LLAMA, "modules_to_save": ["lm_head"]}),
    "dropouts": (tiny_llama, {**LLAMA, "module_dropout": 0.5, "rank_dropout": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    check_answers(make, tmp_path / "it", LoHaConfig, **config)


@pytest.mark.parametrize("effective", [True, False])
@pytest.mark.parametrize("layer", ["linear", "conv", "grouped", "line"])
def test_sums_match_dense_arithmetic(layer: str, effective: bool, tmp_path: Path) -> None:
    check_sums(layer, tmp_path, LoHaConfig, r=3, use_effective_conv2d=effective)


def test_half_precision_base_matches_peft(tmp_path: Path) -> None:
    check_half_precision(tmp_path / "it", LoHaConfig, **LLAMA)


def test_quantised_and_offloaded_bases_match_peft(tmp_path: Path) -> None:
    check_quantised_and_offloaded(tmp_path / "it", LoHaConfig, **LLAMA)


@pytest.mark.parametrize("factor", ["w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"])
def test_adapter_with_a_zero_factor_is_refused(factor: str, tmp_path: Path) -> None:
    check_untrained_is_refused(
        tiny_conv,
        tmp_path / "it",
        LoHaConfig,
        fill(0.0, f"hada_{factor}"),
        target_modules=["first"],
        use_effective_conv2d=True,
    )


def test_gradients_match_peft(tmp_path: Path) -> None:
    check_gradients(tmp_path / "it", LoHaConfig, "hada_", **LLAMA)


def test_module_dropout_acts_only_in_training(tmp_path: Path) -> None:
    check_module_dropout(tmp_path / "it", LoHaConfig)


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_rank_dropout_matches_peft_in_training(layer: str, tmp_path: Path) -> None:
    check_rank_dropout(layer, tmp_path / "it", LoHaConfig, torch.float32)
