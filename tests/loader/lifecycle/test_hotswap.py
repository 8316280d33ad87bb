"""Hot swaps: an adapter replaces another of any rank, alpha and targets, or nothing changes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, PolicyError
from adapterdock.manifests.findings.rules import TOTAL_RANK
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import Saved, logits, peft_saves, tiny_llama


@pytest.fixture
def old(tmp_path: Path) -> Saved:
    return peft_saves(tiny_llama(), tmp_path / "old", r=4, lora_alpha=8, target_modules=["q_proj"])


@pytest.fixture
def new(tmp_path: Path) -> Saved:
    return peft_saves(
        tiny_llama(),
        tmp_path / "new",
        seed=3,
        r=8,
        lora_alpha=2,
        target_modules=["v_proj", "down_proj"],
    )


@pytest.fixture
def model(old: Saved) -> AdaptedModel:
    found = adapterdock.attach(tiny_llama(), {"version": 1, "base": {}})
    found.load_adapter(str(old.folder), "it")
    found.set_adapter("it")
    return found


def test_hotswap_takes_any_rank_alpha_and_targets(model: AdaptedModel, new: Saved) -> None:
    model.define_composition("half", {"it": 0.5})
    with model.using("it"):
        model.load_adapter(str(new.folder), "it", hotswap=True)
        assert close(logits(model), new.answer)
    assert close(logits(model), new.answer)  # it was the default
    assert model.adapters["it"].rank == 8
    halved = logits(model, adapter="half")
    assert torch.equal(halved, logits(model, adapter={"it": 0.5}))
    assert not any("q_proj" in name for name in model.state_dict())
    base = model.base_model
    hooked = [n for n, m in base.named_modules() if m._forward_hooks]
    assert hooked and not any(n.endswith("q_proj") for n in hooked)


@pytest.mark.parametrize("how", ["nan", "size", "missing"])
def test_a_failed_hotswap_keeps_the_old_adapter(
    model: AdaptedModel, old: Saved, new: Saved, how: str
) -> None:
    before, state = logits(model), model.state_dict()
    tensors = load_file(new.file)
    first = next(iter(tensors))
    if how == "nan":
        tensors[first][0, 0] = float("nan")
    elif how == "size":
        tensors[first] = tensors[first][:, :-1].contiguous()
    else:
        del tensors[first]
    save_file(tensors, new.file, metadata={"format": "pt"})
    with pytest.raises(AdapterdockError):
        model.load_adapter(str(new.folder), "it", hotswap=True)
    assert torch.equal(logits(model), before)
    assert {k: id(v) for k, v in model.state_dict(keep_vars=True).items()}.keys() == state.keys()
    assert model.adapters["it"].rank == 4


def test_rules_check_the_new_rank_before_a_hotswap(model: AdaptedModel, new: Saved) -> None:
    model.rules = lambda active: [
        TOTAL_RANK.finding("too large") for n in active if model._host.adapters.by_name[n].rank > 4
    ]
    before = logits(model)
    with pytest.raises(PolicyError):
        model.load_adapter(str(new.folder), "it", hotswap=True)
    assert torch.equal(logits(model), before)


def test_hotswap_of_an_unknown_name_is_refused_unless_auto(model: AdaptedModel, new: Saved) -> None:
    with pytest.raises(AttachError) as caught:
        model.load_adapter(str(new.folder), "other", hotswap=True)
    assert caught.value.code == "AD730"
    model.load_adapter(str(new.folder), "other", hotswap="auto")
    assert close(logits(model, adapter="other"), new.answer)
    with pytest.raises(AttachError) as caught:
        model.load_adapter(str(new.folder), "it")
    assert caught.value.code == "AD720"


def test_calls_during_a_hotswap_use_the_old_or_the_new_adapter(
    model: AdaptedModel, old: Saved, new: Saved
) -> None:
    answers = {"old": logits(model), "new": new.answer}
    odd: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                with model.using("it"):
                    found = logits(model)
            except BaseException as error:
                odd.append(error)
                return
            if not any(close(found, one) for one in answers.values()):
                odd.append("neither")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        saved = (new, old)[turn % 2]
        model.load_adapter(str(saved.folder), "it", hotswap=True)
    done.set()
    for thread in threads:
        thread.join()
    assert odd == []
    assert json.loads((old.folder / "adapter_config.json").read_text())["r"] == 4
