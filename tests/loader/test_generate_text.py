"""Generating text from a prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.generate_text import answer, encode, load_tokenizer
from adapterdock.loader.load import attach, load
from adapterdock.manifests.findings.errors import AttachError, RoutingError, UsageError
from support.shelf import Shelf, manifest_of

PROMPT = "w5 w9 w7"


@pytest.fixture
def model(shelf: Shelf, tmp_path: Path) -> AdaptedModel:
    return load(manifest_of(shelf, tmp_path))


def greedy(model: Any, prompt: str = PROMPT, **how: Any) -> str:
    return answer(model, load_tokenizer(model), prompt, max_new_tokens=6, chat=False, **how)


def test_each_adapter_gives_its_own_answer(model: AdaptedModel) -> None:
    tokenizer = load_tokenizer(model)
    base = model.base_model
    encoded = tokenizer(PROMPT, return_tensors="pt")
    plain = base.generate(**encoded, do_sample=False, max_new_tokens=6)[0, 3:]
    assert greedy(model) == tokenizer.decode(plain, skip_special_tokens=True).strip()
    assert greedy(model, adapter="one") != greedy(model)
    with model.using("one"):
        assert greedy(model) == greedy(model, adapter="one")
        assert greedy(model, adapter="__base__") != greedy(model)


def test_sampling_uses_the_seed_and_keeps_the_global_generator(model: AdaptedModel) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    one, same, other = (greedy(model, temperature=5.0, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pieces_are_written_as_they_are_generated(model: AdaptedModel) -> None:
    pieces: list[str] = []
    text = greedy(model, write=pieces.append)
    assert "".join(pieces).strip() == text


def test_the_chat_template_is_used_if_requested(shelf: Shelf) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shelf.base)
    plain = encode(tokenizer, "w5", chat=True)["input_ids"].tolist()
    tokenizer.chat_template = "w3 {{ messages[0].content }} w4"
    assert encode(tokenizer, "w5", chat=False)["input_ids"].tolist() == plain == [[5]]
    assert encode(tokenizer, "w5", chat=True)["input_ids"].tolist() == [[3, 5, 4]]


def test_sampling_defaults_of_the_base_are_ignored_without_a_warning(
    shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf.base, base)
    settings = base / "generation_config.json"
    sampling = {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "top_k": 3}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **sampling}))
    model = load(manifest_of(shelf, tmp_path, base={"model": base}))
    capfd.readouterr()
    assert greedy(model) == greedy(load(manifest_of(shelf, tmp_path / "plain")))
    assert "generation flags" not in "".join(capfd.readouterr())


def test_errors_of_template_and_model_are_findings(model: AdaptedModel) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(AttachError, match="no users here") as caught:
        answer(model, tokenizer, PROMPT)
    assert caught.value.code == "AD785"
    assert caught.value.__cause__ is not None
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["beyond"])
    with pytest.raises(AttachError, match="IndexError"):
        answer(model, tokenizer, "beyond", chat=False)
    with pytest.raises(RoutingError):
        greedy(model, adapter="nobody")


def test_only_a_loaded_base_has_a_tokenizer(shelf: Shelf, tmp_path: Path) -> None:
    live = attach(shelf.model(), manifest_of(shelf, tmp_path))
    with pytest.raises(UsageError) as caught:
        load_tokenizer(live)
    assert caught.value.code == "AD904"
    bare = tmp_path / "bare"
    shutil.copytree(shelf.base, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(AttachError) as failed:
        load_tokenizer(load(manifest_of(shelf, tmp_path, base={"model": bare})))
    assert failed.value.code == "AD792"
