"""transformers' ``Trainer`` on an adapted model without callbacks, compared with PEFT."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter.warning import AdapterWarning
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from support.near import close, same_losses
from support.peft_adapters import (
    Saved,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_llama,
)
from support.training import arguments, losses, rows, train
from transformers import PreTrainedModel, Trainer


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_adapter(folder: Path, base: Any = None, **config: Any) -> Saved:
    """A LoRA as PEFT has it before the first step (B is random, that all has a gradient)."""
    settings = {"target_modules": ["q_proj", "v_proj", "down_proj"], **config}
    return peft_saves(base or tiny_llama(), folder, **settings)


def ours(saved: Saved, base: Any = None) -> AdaptedModel:
    model = AdaptedModel(base or tiny_llama())
    model.load_adapter(saved.folder, "it", trainable=True)
    model.set_adapter("it")
    return model


def pefts(saved: Saved, base: Any = None) -> Any:
    return PeftModel.from_pretrained(
        copy.deepcopy(base or tiny_llama()), str(saved.folder), is_trainable=True
    )


@pytest.mark.parametrize("how", ["plain", "accumulating", "reentrant", "not reentrant"])
def test_the_losses_are_pefts(how: str, tmp_path: Path) -> None:
    saved = first_adapter(tmp_path / "saved")
    more: dict[str, Any] = {}
    if how == "accumulating":
        more = {"gradient_accumulation_steps": 2, "max_steps": 3}
    elif how != "plain":
        kwargs = {"use_reentrant": how == "reentrant"}
        more = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
    model = ours(saved)
    mine = train(model, tmp_path / "mine", **more)
    theirs = train(pefts(saved), tmp_path / "theirs", **more)
    assert len(losses(mine)) == mine.args.max_steps
    assert same_losses(losses(mine), losses(theirs))
    assert losses(mine)[0] != losses(mine)[-1]
    trained = {
        name.replace(".default.", ".it."): value
        for name, value in theirs.model.named_parameters()
        if value.requires_grad
    }
    state = model.state_dict()
    assert state.keys() == trained.keys()
    assert all(close(state[n], trained[n]) for n in state)


def test_the_first_layer_is_trained_under_reentrant_checkpointing(tmp_path: Path) -> None:
    """transformers hooks the embeddings for this, of models that take ids; here no hook is needed,
    so that the first layer of a vision model is trained too."""
    model = ours(first_adapter(tmp_path / "saved")).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.base_model.disable_input_require_grads()
    data = rows(2)
    batch = {k: torch.stack([row[k] for row in data]) for k in ("input_ids", "labels")}
    model(**batch, use_cache=False).loss.backward()
    assert all(
        p.grad is not None and p.grad.any()
        for p in model._host.adapters.by_name["it"].resident.parameters.values()
    )


def test_the_trainer_finds_the_bases_attributes(tmp_path: Path) -> None:
    for base in (tiny_llama(), tiny_bert()):
        mine = Trainer(AdaptedModel(copy.deepcopy(base)), arguments(tmp_path))
        theirs = Trainer(base, arguments(tmp_path))
        for trainer in (mine, theirs):
            trainer._set_signature_columns_if_needed()
        for what in (
            "label_names",
            "can_return_loss",
            "model_accepts_loss_kwargs",
            "_loss_shifts_labels",
        ):
            assert getattr(mine, what) == getattr(theirs, what), what
        assert {*theirs._signature_columns} <= {*mine._signature_columns}
        assert "note" not in mine._signature_columns


def test_a_checkpoint_is_the_adapter_and_not_the_base(tmp_path: Path) -> None:
    base = tiny_llama()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model = ours(first_adapter(tmp_path / "saved"), base)
    train(model, tmp_path / "run", save_strategy="steps", save_steps=2)
    folder = tmp_path / "run" / "checkpoint-4"
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors.keys() == load_file(tmp_path / "saved" / "adapter_model.safetensors").keys()
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    assert not (folder / "config.json").exists()
    assert all(torch.equal(base.state_dict()[k], before[k]) for k in before)

    theirs = logits(peft_loads(tiny_llama(), folder), inputs_of(base))
    assert close(logits(model.eval()), theirs)
    again = AdaptedModel(tiny_llama())
    again.load_adapter(folder, "it")
    again.set_adapter("it")
    assert close(logits(again), theirs)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    saved = first_adapter(tmp_path / "saved", lora_dropout=0.2)
    uninterrupted = ours(saved)
    straight = train(uninterrupted, tmp_path / "uninterrupted", max_steps=6)
    first = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    train(ours(saved), tmp_path / "parts", **first)
    later = ours(saved)
    resumed = train(
        later, tmp_path / "parts", str(tmp_path / "parts" / "checkpoint-3"), max_steps=6
    )
    assert losses(resumed) == losses(straight)
    state = uninterrupted.state_dict()
    assert all(torch.equal(state[k], v) for k, v in later.state_dict().items())


def test_a_run_on_a_new_adapter_is_resumed(tmp_path: Path) -> None:
    def fresh(seed: int) -> AdaptedModel:
        torch.manual_seed(seed)
        model = AdaptedModel(tiny_llama())
        model.add_adapter("it", LoraConfig(r=4, target_modules="all-linear"))
        model.set_adapter("it")
        return model

    uninterrupted = fresh(1)
    train(uninterrupted, tmp_path / "run", save_strategy="steps", save_steps=2)
    later = fresh(2)  # other random numbers, which the checkpoint replaces
    train(later, tmp_path / "run", str(tmp_path / "run" / "checkpoint-2"))
    state = uninterrupted.state_dict()
    assert all(torch.equal(state[k], v) for k, v in later.state_dict().items())


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    model = ours(first_adapter(tmp_path / "saved"))
    more = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings = arguments(
        tmp_path / "run",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        learning_rate=2.0,  # it gets worse at once
        **more,
    )
    trainer = Trainer(model, settings, train_dataset=rows(), eval_dataset=rows(4, seed=9))
    trainer.train()
    best = Path(str(trainer.state.best_model_checkpoint))
    assert best.name != "checkpoint-4"
    loaded = load_file(best / "model.safetensors")
    assert all(torch.equal(v, loaded[k]) for k, v in model.state_dict().items())
    assert same_losses([trainer.evaluate()["eval_loss"]], [trainer.state.best_metric])


def test_evaluation_and_prediction_are_pefts(tmp_path: Path) -> None:
    config = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    saved = first_adapter(tmp_path / "saved", tiny_bert(), **config)
    data = rows(10, labels=3)
    results: list[Any] = []
    for model in (ours(saved, tiny_bert()), pefts(saved, tiny_bert())):
        trainer = train(model, tmp_path / "run", data=data)
        evaluated = trainer.evaluate(data)
        predicted = trainer.predict(data)
        results.append((losses(trainer), evaluated["eval_loss"], predicted.predictions))
        assert predicted.label_ids.shape == (10,)
    (mine, my_loss, my_logits), (theirs, their_loss, their_logits) = results
    assert same_losses([*mine, my_loss], [*theirs, their_loss])
    assert close(torch.from_numpy(my_logits), torch.from_numpy(their_logits))


def test_save_model_writes_a_source(tmp_path: Path) -> None:
    model = ours(first_adapter(tmp_path / "saved"))
    trainer = train(model, tmp_path / "run")
    trainer.save_model(str(tmp_path / "out"))
    again = AdaptedModel(tiny_llama())
    again.load_adapter(tmp_path / "out", "it")
    assert again._host.adapters.by_name["it"].rank == 4


def test_an_inference_adapter_is_not_trained(tmp_path: Path) -> None:
    saved = first_adapter(tmp_path / "saved")
    model = ours(saved)
    other = first_adapter(tmp_path / "other", target_modules=["q_proj"])
    model.load_adapter(other.folder, "other")
    model.set_adapter(["it", "other"])
    before = {
        n: p.clone() for n, p in model._host.adapters.by_name["other"].resident.parameters.items()
    }
    train(model, tmp_path / "run", save_strategy="steps", save_steps=4)
    after = model._host.adapters.by_name["other"].resident.parameters
    assert all(torch.equal(before[n], after[n]) for n in before)
    written = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    assert written.keys() == model._host.adapters.by_name["it"].resident.parameters.keys()


def test_transformers_accepts_the_wrapper_as_its_base() -> None:
    model = AdaptedModel(tiny_llama())
    assert isinstance(model, PreTrainedModel)
    assert isinstance(model, AdaptedModel)
    assert model.__class__ is type(model.base_model)


def _said_of_two_calls(model: AdaptedModel) -> list[str]:
    """The codes of their warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            model(**inputs_of(model.get_base_model()))
    return [str(one.message).split()[1] for one in said if one.category is AdapterWarning]


def test_training_the_base_under_a_fixed_adapter_is_said_once(tmp_path: Path) -> None:
    saved = first_adapter(tmp_path / "saved")
    model = AdaptedModel(tiny_llama())
    model.load_adapter(saved.folder, "it")
    model.set_adapter("it")
    model.eval()
    assert _said_of_two_calls(model) == []  # gradients of the inputs, for example
    model.train()
    assert _said_of_two_calls(model) == ["AD824"]
    assert _said_of_two_calls(ours(saved).train()) == []
    frozen = AdaptedModel(tiny_llama().requires_grad_(False))
    frozen.load_adapter(saved.folder, "it")
    frozen.set_adapter("it")
    assert _said_of_two_calls(frozen.train()) == []
