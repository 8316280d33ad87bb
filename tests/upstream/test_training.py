"""What transformers' peft integration tests prove of training and saving, proved here:
``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError
from peft import LoKrConfig, LoraConfig, PrefixTuningConfig
from safetensors.torch import load_file
from support.near import close, same_losses
from support.peft_adapters import (
    by_peft_name,
    ids,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)
from support.shelf import Shelf


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lora(**options: Any) -> LoraConfig:
    """A new LoRA with a delta."""
    fields: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"], **options}
    return LoraConfig(init_lora_weights=False, **fields)


def begun(*names: str, **options: Any) -> AdaptedModel:
    torch.manual_seed(3)
    model = AdaptedModel(tiny_llama())
    for name in names:
        model.add_adapter(name, lora(**options))
    return model


def gradients(model: AdaptedModel) -> set[str]:
    return {name for name, p in by_peft_name(model).items() if p.grad is not None}


def test_a_new_adapter_answers_and_generates_once_active() -> None:
    model = begun("it")
    alone = logits(model)
    assert torch.equal(alone, logits(model.base_model)), "it does not become active"
    model.set_adapter("it")
    assert not close(logits(model), alone)
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    answer = model.generate(input_ids=ids(), **settings)
    assert answer.shape[1] == ids().shape[1] + 4
    assert not torch.equal(answer, model.generate(input_ids=ids(), adapter=None, **settings))


def test_a_new_adapter_that_was_saved_loads_again(tmp_path: Path) -> None:
    model = begun("it")
    model.set_adapter("it")
    model.save_pretrained(tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").rglob("*")}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= found
    assert not found & {"config.json", "pytorch_model.bin", "adapter_model.bin"}
    for file in (tmp_path / "out").rglob("*.safetensors"):
        assert all("lora_" in name for name in load_file(file)), "the adapter, not the base"
    again = adapterdock.attach(tiny_llama(), tmp_path / "out")
    assert again.active_adapters() == ["it"]
    assert torch.equal(logits(again), logits(model))
    theirs = peft_loads(tiny_llama(), tmp_path / "out")
    assert close(logits(theirs, inputs_of(tiny_llama())), logits(model))


def test_adapters_of_other_methods_are_created_like_a_lora(tmp_path: Path) -> None:
    base = tiny_llama()
    alone = logits(base)
    model = AdaptedModel(base)
    config = LoKrConfig(r=2, target_modules=["q_proj", "v_proj"], init_weights=False)
    model.add_adapter("it", config)
    answer = logits(model, adapter="it")
    assert not close(answer, alone)
    model.save_adapter(tmp_path / "it", "it")
    theirs = peft_loads(tiny_llama(), tmp_path / "it")
    assert close(logits(theirs, inputs_of(base)), answer)


def test_several_active_ones_are_saved_and_are_active_again(tmp_path: Path) -> None:
    model = begun("one", "two")
    model.set_adapter(["two", "one"])
    model.save_pretrained(tmp_path / "out")
    again = adapterdock.attach(tiny_llama(), tmp_path / "out")
    assert again.active_adapters() == ["two", "one"]
    assert torch.equal(logits(again), logits(model))
    for name in ("one", "two"):
        assert torch.equal(logits(again, adapter=name), logits(model, adapter=name))


def test_a_replaced_head_is_trained_and_saved_with_the_adapter(tmp_path: Path) -> None:
    model = begun("it", modules_to_save=["lm_head"])
    model.set_adapter("it")
    heads = [name for name in model.state_dict() if "lm_head" in name]
    assert heads and all(".it." in name for name in heads)
    trained = {name for name, p in by_peft_name(model).items() if p.requires_grad}
    assert trained == set(model.state_dict()) and set(heads) <= trained
    model(**inputs_of(tiny_llama())).logits.mean().backward()
    assert gradients(model) == trained
    assert all(p.grad is None for p in model.base_model.parameters())
    model.save_adapter(tmp_path / "it", "it")
    assert "base_model.model.lm_head.weight" in load_file(
        tmp_path / "it" / "adapter_model.safetensors"
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_trains_the_adapter_and_nothing_else(reentrant: bool) -> None:
    model = begun("it").train()
    model.set_adapter("it")
    model(**inputs_of(tiny_llama())).logits.mean().backward()
    plain = {name: p.grad.clone() for name, p in by_peft_name(model).items() if p.grad is not None}
    model.zero_grad()
    tokens = ids()
    embeddings = model.get_input_embeddings()
    assert embeddings(tokens).requires_grad is False
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert tokens.requires_grad is False
    assert all(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)
    model(input_ids=tokens, use_cache=False).logits.mean().backward()
    assert gradients(model) == plain.keys() == set(model.state_dict())
    assert all(
        close(p.grad, plain[name]) for name, p in by_peft_name(model).items() if p.grad is not None
    )


def test_on_a_quantised_base_the_adapter_is_saved_and_nothing_of_the_base(
    shelf: Shelf, tmp_path: Path
) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    def quantised() -> Any:
        return AutoModelForCausalLM.from_pretrained(
            shelf.base,
            quantization_config=TorchAoConfig(Int8WeightOnlyConfig(version=2)),
            device_map="auto",
            dtype=torch.float32,
        )

    batch = {"input_ids": ids()}
    model = AdaptedModel(quantised())
    model.load_adapter(shelf.one.folder, "one", trainable=True)
    model.set_adapter("one")
    model(**batch, labels=ids()).loss.backward()
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["one"].resident.parameters.values():
            parameter -= 0.5 * parameter.grad
    model.save_adapter(tmp_path / "it", "one")
    assert {path.name for path in (tmp_path / "it").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    tensors = load_file(tmp_path / "it" / "adapter_model.safetensors")
    assert tensors.keys() == load_file(shelf.one.file).keys()
    again = AdaptedModel(quantised())
    again.load_adapter(tmp_path / "it", "one")
    assert torch.equal(logits(again, batch, adapter="one"), logits(model, batch))


def rows(count: int = 8) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    found: list[dict[str, Any]] = []
    for _ in range(count):
        tokens = torch.randint(3, 61, (8,), generator=generator)
        found.append({"input_ids": tokens, "labels": tokens.clone()})
    return found


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_the_best_of_a_run_is_brought_back_at_its_end(kind: str, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = AdaptedModel(tiny_llama())
    if kind == "lora":
        model.add_adapter("it", lora())
    else:
        prefix = peft_saves(
            tiny_llama(),
            tmp_path / "prefix",
            kind=PrefixTuningConfig,
            task_type="CAUSAL_LM",
            num_virtual_tokens=3,
        )
        model.load_adapter(prefix.folder, "it", trainable=True)
    model.set_adapter("it")
    settings = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=5.0,  # it gets worse at once
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, train_dataset=rows(), eval_dataset=rows(4))
    trainer.train()
    best = Path(str(trainer.state.best_model_checkpoint))
    saved = load_file(best / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert same_losses([trainer.evaluate()["eval_loss"]], [trainer.state.best_metric])


def test_a_name_in_use_is_refused_for_a_new_adapter() -> None:
    model = begun("it")
    before = traces(model.base_model)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    config = json.dumps(dict(model._host.adapters.by_name["it"].config or {}), default=str)
    with pytest.raises(AttachError) as caught:
        model.add_adapter("it", lora(r=2))
    assert caught.value.code == "AD720"
    assert model.state_dict().keys() == values.keys()
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert json.dumps(dict(model._host.adapters.by_name["it"].config or {}), default=str) == config
    assert same_traces(traces(model.base_model), before)
