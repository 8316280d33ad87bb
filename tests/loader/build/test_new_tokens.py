"""Tokens that were added in training: PEFT's recipe is to resize the base, then to train the new
rows alone (``trainable_token_indices``). The file then holds the resized embedding too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import FitError
from peft import TrainableTokensConfig
from safetensors.torch import load_file
from support.near import close, differs
from support.peft_adapters import logits, peft_loads, peft_saves, tiny_gpt2, tiny_llama

NEW = [61, 62, 63, 64]
IDS = {"input_ids": torch.tensor([[3, 61, 64, 5], [62, 7, 63, 60]])}


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


def resized(make: Any, seed: int = 1) -> Any:
    base = make()
    torch.manual_seed(seed)
    base.resize_token_embeddings(65)
    return base


def trained(base: Any, folder: Path, **config: Any) -> torch.Tensor:
    """PEFT trains the new rows on ``base`` and saves; its answer to the tests' tokens."""
    wanted = {"trainable_token_indices": NEW, "target_modules": ["q_proj"], **config}
    if "kind" in config:
        wanted = config
    peft_saves(base, folder, save={"save_embedding_layers": True}, **wanted)
    return logits(peft_loads(base, folder), IDS)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "untied": (tiny_llama, {}),
    "tied": (tied_llama, {}),
    "tied, both named": (
        tied_llama,
        {"trainable_token_indices": {"embed_tokens": NEW, "lm_head": NEW}},
    ),
    "gpt2": (tiny_gpt2, {"target_modules": ["c_attn"]}),
    "the method alone": (
        tied_llama,
        {"kind": TrainableTokensConfig, "token_indices": NEW, "target_modules": ["embed_tokens"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_saved_embedding_below_new_rows_gives_pefts_logits(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    base = resized(make)
    want = trained(base, tmp_path / "it", **config)
    names = load_file(tmp_path / "it" / "adapter_model.safetensors")
    assert any(name.endswith("base_layer.weight") for name in names)
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it")
    assert close(logits(model, IDS, adapter="it"), want)
    assert not model._host.adapters.by_name[
        "it"
    ].replaced  # nothing but the rows differs from the base


@pytest.mark.parametrize("case", CASES)
def test_a_base_that_was_resized_with_other_numbers_gives_pefts_logits(
    case: str, tmp_path: Path
) -> None:
    make, config = CASES[case]
    trained(resized(make), tmp_path / "it", **config)
    other = resized(make, seed=2)
    own, theirs = (one.get_input_embeddings().weight[61:] for one in (other, resized(make)))
    assert differs(own, theirs, 1e-8)
    want = logits(peft_loads(other, tmp_path / "it"), IDS)
    model = AdaptedModel(other)
    model.load_adapter(tmp_path / "it", "it")
    assert close(logits(model, IDS, adapter="it"), want)
    whole = model._host.adapters.by_name["it"].replaced
    assert not any(name.endswith(("embed_tokens", "wte")) for name in whole)  # only rows differ


@pytest.mark.parametrize("case", CASES)
def test_a_base_that_differs_in_other_rows_gives_pefts_logits(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    trained(resized(make), tmp_path / "it", **config)
    other = resized(make)
    with torch.no_grad():
        other.get_input_embeddings().weight[5] += 1
    want = logits(peft_loads(other, tmp_path / "it"), IDS)
    alone = logits(copy.deepcopy(other), IDS)
    model = AdaptedModel(other)
    model.load_adapter(tmp_path / "it", "it")
    model.set_adapter("it")
    live = logits(model, IDS)
    assert close(live, want)
    model.merge_adapter()
    assert close(logits(model, IDS), live)
    model.unmerge_adapter()
    assert torch.equal(logits(model.base_model, IDS), alone)


def test_new_rows_survive_being_saved_and_loaded(tmp_path: Path) -> None:
    base = resized(tied_llama)
    trained(base, tmp_path / "it")
    other = resized(tied_llama)
    with torch.no_grad():
        other.get_input_embeddings().weight[5] += 1
    model = AdaptedModel(other)
    model.load_adapter(tmp_path / "it", "it")
    before = logits(model, IDS, adapter="it")
    model.save_adapter(tmp_path / "again", "it")
    model.load_adapter(tmp_path / "again", "again")
    assert torch.equal(logits(model, IDS, adapter="again"), before)
    assert close(logits(peft_loads(other, tmp_path / "again"), IDS), before)


def test_a_base_that_was_not_resized_is_refused_with_the_way_out(tmp_path: Path) -> None:
    trained(resized(tied_llama), tmp_path / "it")
    with pytest.raises(FitError) as caught:
        AdaptedModel(tied_llama()).load_adapter(tmp_path / "it", "it")
    found = {f.code: f for f in caught.value.findings}
    assert codes.VOCABULARY.id in found and codes.TENSOR_UNEXPECTED.id not in found
    assert "base.vocab_size: 65" in str(found[codes.VOCABULARY.id].hint)
