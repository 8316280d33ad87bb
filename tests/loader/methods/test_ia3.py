"""IA3 compared with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError
from peft import IA3Config
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
from support.peft_adapters import (
    adapted,
    attach,
    logits,
    one_layer,
    peft_saves,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)
from torch import nn

LLAMA = {
    "target_modules": ["k_proj", "v_proj", "down_proj"],
    "feedforward_modules": ["down_proj"],
}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, LLAMA),
    "outputs alone": (tiny_llama, {"target_modules": "all-linear", "feedforward_modules": []}),
    "a pattern": (
        tiny_llama,
        {"target_modules": ".*(k|up)_proj", "feedforward_modules": ".*1.*up_proj"},
    ),
    "an ending without its dot": (
        tiny_llama,
        {"target_modules": ["q_proj", "up_proj"], "feedforward_modules": ["up_proj"]},
    ),
    "conv1d": (
        tiny_gpt2,
        {
            "target_modules": ["c_attn", "mlp.c_proj"],
            "feedforward_modules": ["mlp.c_proj"],
            "fan_in_fan_out": True,
        },
    ),
    "conv": (
        tiny_conv,
        {
            "target_modules": ["first", "grouped", "deep", "head"],
            "feedforward_modules": ["grouped", "deep"],
        },
    ),
    "seq2seq": (tiny_t5, {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]}),
    "saved head": (
        tiny_llama,
        {"target_modules": ["v_proj"], "feedforward_modules": [], "modules_to_save": ["lm_head"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    check_answers(make, tmp_path / "it", IA3Config, **config)


@pytest.mark.parametrize("feedforward", [True, False])
@pytest.mark.parametrize("layer", ["linear", "conv1d", "conv", "grouped"])
def test_sums_match_dense_arithmetic(layer: str, feedforward: bool, tmp_path: Path) -> None:
    check_sums(
        layer,
        tmp_path,
        IA3Config,
        feedforward_modules=["layer"] if feedforward else [],
        fan_in_fan_out=layer == "conv1d",
    )


def test_half_precision_base_matches_peft(tmp_path: Path) -> None:
    check_half_precision(tmp_path / "it", IA3Config, **LLAMA)


def test_quantised_and_offloaded_bases_match_peft(tmp_path: Path) -> None:
    check_quantised_and_offloaded(tmp_path / "it", IA3Config, **LLAMA)


def test_vector_of_ones_is_refused(tmp_path: Path) -> None:
    check_untrained_is_refused(tiny_llama, tmp_path / "it", IA3Config, fill(1.0, "ia3_"), **LLAMA)


def test_gradients_match_peft(tmp_path: Path) -> None:
    check_gradients(tmp_path / "it", IA3Config, "ia3_", **LLAMA)


def test_convolution_without_a_batch_is_rescaled_along_its_channels(tmp_path: Path) -> None:
    base = one_layer("conv")
    saved = peft_saves(
        base, tmp_path / "it", kind=IA3Config, target_modules=["layer"], feedforward_modules=[]
    )
    model = adapted(base, saved)
    row = logits(model, {"x": base.example[0]})
    assert row.dim() == 3
    assert close(row, saved.answer[0])


def test_hook_on_the_module_runs_once(tmp_path: Path) -> None:
    base = one_layer("linear")
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=IA3Config,
        target_modules=["layer"],
        feedforward_modules=["layer"],
    )
    model = adapted(base, saved)
    calls: list[int] = []
    base.layer.register_forward_hook(lambda *_: calls.append(1))
    assert close(logits(model), saved.answer)
    assert calls == [1]


def test_output_of_an_earlier_hook_is_kept(tmp_path: Path) -> None:
    base = one_layer("linear")
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=IA3Config,
        target_modules=["layer"],
        feedforward_modules=["layer"],
    )
    base.layer.register_forward_hook(lambda module, args, output: output + 1)
    assert close(logits(adapted(base, saved)), saved.answer + 1)


def test_feedforward_module_with_two_inputs_is_refused(tmp_path: Path) -> None:
    class Gated(nn.Linear):
        def forward(self, input: torch.Tensor, gate: float = 1.0) -> torch.Tensor:
            return super().forward(input) * gate

    base = one_layer("linear")
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=IA3Config,
        target_modules=["layer"],
        feedforward_modules=["layer"],
    )
    base.layer.__class__ = Gated
    with pytest.raises(AttachError, match="more than one input"):
        attach(AdaptedModel(base), saved)
