"""Prompt tuning, p-tuning and prefix tuning: PEFT's logits, PEFT's tokens, and an untouched base."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel, AdapterWarning
from adapterdock.manifests.errors import AttachError, FitError, RoutingError
from support.peft_adapters import (
    TOLERANCE,
    Saved,
    adapted,
    attach,
    ids,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)

CASES: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    f"{kind}-{name}": (base, kind, {"task_type": task})
    for kind in ("prompt", "p", "prefix")
    for name, base, task in (
        ("llama", tiny_llama, "CAUSAL_LM"),
        ("gpt2", tiny_gpt2, "CAUSAL_LM"),
        ("t5", tiny_t5, "SEQ_2_SEQ_LM"),
        ("bert", tiny_bert, "SEQ_CLS"),
    )
    if (kind, name) != ("prefix", "bert")
}
GENERATING = [name for name in CASES if not name.endswith("bert")]


def saved(case: str, folder: Path, **more: Any) -> tuple[Any, Saved]:
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    make, kind, config = CASES[case]
    kinds = {"prompt": PromptTuningConfig, "p": PromptEncoderConfig, "prefix": PrefixTuningConfig}
    base = make()
    config = {"num_virtual_tokens": 3, **config, **more}
    return base, peft_saves(base, folder, kind=kinds[kind], **config)


def lora(base: Any, folder: Path, **more: Any) -> Saved:
    return peft_saves(base, folder, target_modules=["q_proj", "v_proj"], **more)


def padded(model: Any) -> dict[str, torch.Tensor]:
    """Two rows, the first padded on the left."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, :2] = 0
    return {**inputs_of(model), "attention_mask": mask}


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_pefts(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    model = adapted(base, adapter)
    answer = logits(model)
    assert answer.shape == adapter.answer.shape
    assert torch.allclose(answer, adapter.answer, atol=TOLERANCE)
    if case != "prompt-bert":
        assert not torch.allclose(answer[:, -1], logits(base)[:, -1], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_the_logits_of_padded_rows_are_pefts(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    inputs = padded(base)
    expected = logits(peft_loads(base, adapter.folder), inputs)
    assert torch.allclose(logits(adapted(base, adapter), inputs), expected, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_pefts(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    labels = torch.tensor([0, 2]) if case.endswith("bert") else ids(length=7)
    inputs = {"input_ids": ids(), "labels": labels}
    oracle = peft_loads(base, adapter.folder)
    with torch.no_grad():
        expected = oracle(**inputs).loss
        assert torch.allclose(adapted(base, adapter)(**inputs).loss, expected, atol=TOLERANCE)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "top_k": 20},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", GENERATING)
def test_the_generated_tokens_are_pefts(case: str, way: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    inputs = padded(base)
    inputs.pop("decoder_input_ids", None)
    options = {"max_new_tokens": 8, "pad_token_id": 0, "eos_token_id": None, **WAYS[way]}
    if case.startswith("prefix") and way == "no cache":
        options["use_cache"] = True  # PEFT goes on with the cache of the prefix and fails
    oracle = peft_loads(base, adapter.folder)
    torch.manual_seed(5)
    expected = oracle.generate(**inputs, **options)
    options |= WAYS[way]
    torch.manual_seed(5)
    assert adapted(base, adapter).generate(**inputs, **options).tolist() == expected.tolist()
