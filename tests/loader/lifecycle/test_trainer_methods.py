"""``Trainer`` with new adapters of every method: checkpoints, resuming, recomputation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from safetensors.torch import load_file
from support.near import close, same_losses
from support.new_adapters import CAUSAL, METHODS, new_adapter
from support.peft_adapters import logits, peft_loads
from support.training import losses, train

SAVING = {"save_strategy": "steps", "save_steps": 2}
ENCODED = {
    "prefix, projected": {"peft_type": "PREFIX_TUNING", "prefix_projection": True, **CAUSAL},
    "p-tuning, lstm": {
        "peft_type": "P_TUNING",
        "encoder_reparameterization_type": "LSTM",
        "encoder_dropout": 0.3,
        **CAUSAL,
    },
}
CASES = {**METHODS, **{what: (METHODS["prompt"][0], fields) for what, fields in ENCODED.items()}}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("what", CASES)
def test_a_run_is_saved_and_resumed_exactly(what: str, tmp_path: Path) -> None:
    make, fields = CASES[what]
    base = make()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    uninterrupted = new_adapter(base, fields)
    straight = train(uninterrupted, tmp_path / "run", **SAVING)
    assert losses(straight)[0] != losses(straight)[-1]
    assert all(torch.equal(base.state_dict()[k], before[k]) for k in before)

    later = new_adapter(make(), fields, seed=6)  # other first values, which the checkpoint replaces
    resumed = train(later, tmp_path / "run", str(tmp_path / "run" / "checkpoint-2"))
    assert losses(resumed) == losses(straight)
    state = uninterrupted.state_dict()
    assert state.keys() == later.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in later.state_dict().items())

    folder = tmp_path / "run" / "checkpoint-4"
    assert load_file(folder / "model.safetensors").keys() == state.keys()
    assert not (folder / "config.json").exists()
    answer = logits(uninterrupted.eval())
    assert close(logits(peft_loads(base, folder)), answer)
    again = AdaptedModel(make())
    again.load_adapter(folder, "it")
    assert close(logits(again, adapter="it"), answer)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("what", [name for name in METHODS if name != "prefix"])
def test_recomputation_in_backward_is_the_same(what: str, reentrant: bool, tmp_path: Path) -> None:
    make, fields = METHODS[what]
    plain = new_adapter(make(), fields)
    expected = losses(train(plain, tmp_path / "plain"))
    model = new_adapter(make(), fields)
    kwargs = {"use_reentrant": reentrant}
    found = train(
        model, tmp_path / "run", gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs
    )
    assert same_losses(losses(found), expected)
    ends = plain.state_dict()
    assert all(close(ends[k], v) for k, v in model.state_dict().items())


def test_a_prefix_is_not_recomputed(tmp_path: Path) -> None:
    make, fields = METHODS["prefix"]
    with pytest.raises(RoutingError) as caught:
        train(new_adapter(make(), fields), tmp_path / "run", gradient_checkpointing=True)
    assert caught.value.code == "AD775"
