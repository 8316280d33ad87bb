"""What a base's generation config asks for, kept for each row of a batch as for the row alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.serving.app.history import history_of
from adapterdock.serving.app.limits import Limits
from support.served import at_once, completion, said, served, write_served
from support.tiny_models import tiny_model
from transformers import GenerationConfig

GATHER = Limits(wait_seconds=0.3)


def manifest_with(folder: Path, **said_by_base: Any) -> Path:
    base: Any = tiny_model("llama")
    base.config.eos_token_id = None
    base.generation_config.eos_token_id = 63
    for name, value in said_by_base.items():
        setattr(base.generation_config, name, value)
    return write_served(folder, base, {"a": {"target_modules": ["q_proj", "down_proj"]}})


@pytest.mark.parametrize(
    "said_by_base",
    [
        {"min_length": 12, "eos_token_id": list(range(3, 15))},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"forced_eos_token_id": 2},  # of a batch, it would be the last token of the longest row
        {"max_time": 1e-9},
        {"prompt_lookup_num_tokens": 3},
        {"token_healing": True},
    ],
    ids=lambda one: next(iter(one)),
)
def test_rows_beside_others_match_rows_alone(tmp_path: Path, said_by_base: Any) -> None:
    manifest = manifest_with(tmp_path, **said_by_base)
    bodies = [
        completion("a", [5, 6], max_tokens=30),
        completion("a", list(range(5, 25)), max_tokens=33),
        completion("__base__", [7, 8, 9], max_tokens=5, temperature=1, seed=3),
    ]
    with served(manifest, limits=GATHER) as client:
        alone = [said(client, one) for one in bodies]
        assert at_once(client, bodies) == alone
    assert any(alone)


def test_a_penalty_of_the_base_acts_without_the_padding() -> None:
    history = history_of(GenerationConfig(repetition_penalty=2.0), ())
    scores = torch.tensor([[4.0, 4.0, 4.0]])
    assert history(torch.tensor([[1]]), scores).tolist() == [[4.0, 2.0, 4.0]]  # type: ignore[arg-type]
    assert not history_of(GenerationConfig(repetition_penalty=1.0), ())
    assert not history_of(None, ())


def test_stop_texts_of_the_base_end_an_answer(tmp_path: Path) -> None:
    free = manifest_with(tmp_path / "free")
    request = completion("a", [5, 6], max_tokens=12)
    with served(free) as client:
        words = said(client, request).split()
    stopping = manifest_with(tmp_path / "stopping", stop_strings=[words[4]])
    with served(stopping) as client:
        answer = client.post("/v1/completions", json=request).json()["choices"][0]
    assert answer["text"].split() == words[: words.index(words[4])]
    assert answer["finish_reason"] == "stop"
