"""Gradients at embeddings with padding, ``max_norm`` or ``scale_grad_by_freq`` match PEFT."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from peft import LoraConfig, PeftModel, TrainableTokensConfig
from support.near import close
from support.peft_adapters import attach, peft_saves
from torch import nn

PADDING, OTHER = 2, 5
TOKENS = [OTHER, PADDING, 7]
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding_idx": PADDING},
    "counting": {"scale_grad_by_freq": True},
    "padded and counting": {"padding_idx": PADDING, "scale_grad_by_freq": True},
    "bounded": {"max_norm": 0.5},
}
ADAPTERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tokens": (TrainableTokensConfig, {"token_indices": TOKENS, "target_modules": ["letters"]}),
    "tokens beside a LoRA": (
        LoraConfig,
        {"target_modules": ["rate"], "trainable_token_indices": {"letters": TOKENS}},
    ),
    "LoRA": (LoraConfig, {"target_modules": ["letters"]}),
    "whole": (LoraConfig, {"target_modules": ["rate"], "modules_to_save": ["letters"]}),
}


class Net(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.letters = nn.Embedding(12, 6, **options)
        self.rate = nn.Linear(6, 4)
        self.example = torch.tensor([[PADDING, PADDING, OTHER, OTHER, OTHER, 1]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rate(self.letters(x))


def gradients(model: nn.Module, inputs: torch.Tensor, **more: Any) -> dict[str, torch.Tensor]:
    model(inputs, **more).tanh().square().sum().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name[name.index("base_model.") :]: grad for name, grad in found.items()}


def both(options: dict[str, Any], adapter: str, folder: Path) -> tuple[Any, AdaptedModel]:
    kind, config = ADAPTERS[adapter]
    base = Net(**options)
    saved = peft_saves(base, folder / "it", kind=kind, **config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(
            copy.deepcopy(base), str(saved.folder), adapter_name="it", is_trainable=True
        ).eval()
    model = AdaptedModel(base)
    attach(model, saved, trainable=True)
    return theirs, model


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("options", EMBEDDINGS)
def test_gradients_of_an_adapted_embedding_match_peft(
    options: str, adapter: str, tmp_path: Path
) -> None:
    theirs, model = both(EMBEDDINGS[options], adapter, tmp_path)
    example = model.base_model.example
    wanted, found = gradients(theirs, example), gradients(model, example)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert close(found[name], wanted[name]), name


@pytest.mark.parametrize("padded", [True, False])
def test_token_at_padding_idx_is_not_trained_in_a_mixed_batch(padded: bool, tmp_path: Path) -> None:
    options = {"padding_idx": PADDING} if padded else {}
    _, model = both(options, "tokens", tmp_path)
    example = model.base_model.example.repeat(2, 1)
    (found,) = gradients(model, example, adapter_names=["it", "__base__"]).values()
    assert bool(found[TOKENS.index(PADDING)].any()) is not padded
    assert found[TOKENS.index(OTHER)].any()


def test_mixed_batch_counts_tokens_like_single_runs(tmp_path: Path) -> None:
    _, model = both({"scale_grad_by_freq": True}, "tokens", tmp_path)
    example = model.base_model.example
    (alone,) = gradients(model, example).values()
    alone = alone.clone()
    for parameter in model.parameters():
        parameter.grad = None
    (found,) = gradients(
        model, torch.cat([example, example]), adapter_names=["it", "__base__"]
    ).values()
    assert close(found, alone)
