"""OFT compared with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError
from peft import OFTConfig
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
    OneLayer,
    adapted,
    logits,
    one_layer,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_conv,
    tiny_llama,
    tiny_t5,
)
from torch import nn

LLAMA = {"target_modules": ["q_proj", "down_proj"], "oft_block_size": 4}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "a block size": (tiny_llama, {"target_modules": "all-linear", "oft_block_size": 4}),
    "a number of blocks": (tiny_llama, {**LLAMA, "oft_block_size": 0, "r": 4}),
    "a size that does not divide": (tiny_llama, {**LLAMA, "oft_block_size": 5}),
    "a number that does not divide": (tiny_llama, {**LLAMA, "oft_block_size": 0, "r": 7}),
    "a size above the width": (tiny_llama, {**LLAMA, "oft_block_size": 32}),
    "one rotation for all": (tiny_llama, {**LLAMA, "block_share": True}),
    "exact": (tiny_llama, {**LLAMA, "use_cayley_neumann": False}),
    "exact and shared": (tiny_llama, {**LLAMA, "use_cayley_neumann": False, "block_share": True}),
    "two terms": (tiny_llama, {**LLAMA, "num_cayley_neumann_terms": 2}),
    "three terms": (tiny_llama, {**LLAMA, "num_cayley_neumann_terms": 3}),
    "four terms": (tiny_llama, {**LLAMA, "num_cayley_neumann_terms": 4}),
    "eight terms": (tiny_llama, {**LLAMA, "num_cayley_neumann_terms": 8}),
    "constrained": (tiny_llama, {**LLAMA, "coft": True, "eps": 0.2}),
    "constrained and shared": (
        tiny_llama,
        {**LLAMA, "coft": True, "eps": 0.2, "block_share": True},
    ),
    "not constrained by much": (tiny_llama, {**LLAMA, "coft": True, "eps": 50.0}),
    "an eps that does not count": (tiny_llama, {**LLAMA, "eps": 0.2}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "v_proj"], "oft_block_size": 4}),
    "seq2seq": (tiny_t5, {"target_modules": ["q", "wo"], "oft_block_size": 4}),
    "module dropout": (tiny_llama, {**LLAMA, "module_dropout": 0.5}),
    "conv": (tiny_conv, {"target_modules": ["first", "grouped", "head"], "oft_block_size": 9}),
    "shared conv": (
        tiny_conv,
        {"target_modules": ["grouped"], "oft_block_size": 8, "block_share": True},
    ),
    "bias": (tiny_bert, {"target_modules": ["query"], "oft_block_size": 4, "bias": "oft_only"}),
    "all biases": (tiny_bert, {"target_modules": ["query"], "oft_block_size": 4, "bias": "all"}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    check_answers(make, tmp_path / "it", OFTConfig, **config)


@pytest.mark.parametrize("layer", ["linear", "conv", "grouped", "embedding"])
def test_sums_match_dense_arithmetic(layer: str, tmp_path: Path) -> None:
    check_sums(layer, tmp_path, OFTConfig, oft_block_size=4)


def test_half_precision_base_matches_peft(tmp_path: Path) -> None:
    check_half_precision(tmp_path / "it", OFTConfig, **LLAMA)


def test_quantised_and_offloaded_bases_match_peft(tmp_path: Path) -> None:
    check_quantised_and_offloaded(tmp_path / "it", OFTConfig, **LLAMA)


@pytest.mark.parametrize("how", [{}, {"use_cayley_neumann": False}, {"coft": True}])
def test_zero_angles_are_refused(how: dict[str, Any], tmp_path: Path) -> None:
    check_untrained_is_refused(
        tiny_llama, tmp_path / "it", OFTConfig, fill(0.0, "oft_"), **LLAMA, **how
    )


@pytest.mark.parametrize("how", [{"num_cayley_neumann_terms": 1}, {"coft": True, "eps": 0.0}])
def test_series_without_angles_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    check_untrained_is_refused(
        tiny_llama, tmp_path / "it", OFTConfig, fill(0.5, "oft_"), **LLAMA, **how
    )


@pytest.mark.parametrize("how", [{}, {"use_cayley_neumann": False}, {"coft": True, "eps": 0.2}])
def test_gradients_match_peft(how: dict[str, Any], tmp_path: Path) -> None:
    check_gradients(tmp_path / "it", OFTConfig, "oft_", **LLAMA, **how)


def test_constraint_does_not_change_the_angles_in_inference(tmp_path: Path) -> None:
    """PEFT writes the constrained angles into its parameters, also in inference."""
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=OFTConfig, **LLAMA, coft=True, eps=0.2)
    model = adapted(base, saved)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.detach()

    oracle = peft_loads(base, saved.folder).train()
    trained = adapted(base, saved, name="again", trainable=True)
    for one in (oracle, trained):
        one(input_ids=torch.tensor([[5, 6]]))
    theirs = {n: p for n, p in oracle.named_parameters() if "oft_R" in n}
    for name, value in trained.state_dict().items():
        if ".again." in name:
            same = theirs[name.replace(".again.", f".{saved.folder.name}.")]
            assert close(value, same)


def test_linear_with_image_input_rotates_the_channels(tmp_path: Path) -> None:
    """PEFT treats any input of four dimensions as an image, and fails."""
    base = one_layer("linear")
    saved = peft_saves(
        base, tmp_path / "it", kind=OFTConfig, target_modules=["layer"], oft_block_size=4
    )
    model = adapted(base, saved)
    answer = logits(model, {"x": base.example[:, None]})
    assert close(answer, saved.answer[:, None])


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv2d(4, 6, 3, dilation=2), "dilation"),
        (nn.Conv2d(4, 6, (1, 3)), "square"),
        (nn.Conv1d(4, 6, 3), "square"),
    ],
)
def test_convolutions_that_oft_does_not_support_are_refused(
    layer: nn.Module, words: str, tmp_path: Path
) -> None:
    base = OneLayer(nn.Conv2d(4, 6, 3), torch.ones(1, 4, 7, 7))
    saved = peft_saves(
        base, tmp_path / "it", kind=OFTConfig, target_modules=["layer"], oft_block_size=4
    )
    with pytest.raises(AdapterdockError, match=words):
        AdaptedModel(OneLayer(layer, base.example)).load_adapter(saved.folder, "it")
