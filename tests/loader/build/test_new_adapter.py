"""New adapters of every method: they begin as PEFT's, train as PEFT's, and PEFT loads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from peft import PromptTuningConfig, get_peft_model
from support.near import close, same_losses
from support.new_adapters import (
    CASES,
    METHODS,
    new_adapter,
    peft_config,
    peft_creates,
    steps,
    written,
)
from support.peft_adapters import (
    inputs_of,
    logits,
    peft_loads,
    same_traces,
    tiny_llama,
    traces,
    word_tokenizer,
)

UNLIKE = frozenset({"inference_mode", "revision", "base_model_name_or_path", "auto_mapping"})
"""Fields of a config that say where it was written, and not what the adapter is."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("what", CASES)
def test_one_seed_gives_the_new_adapter_that_peft_gives(what: str, tmp_path: Path) -> None:
    make, fields = CASES[what]
    base = make()
    mine, my_config = written(new_adapter(base, peft_config(fields)), tmp_path / "mine")
    theirs, their_config = written(peft_creates(base, fields), tmp_path / "theirs")
    repeated = theirs.keys() - mine.keys()  # PEFT writes the rows of a tied head once more
    assert not repeated or all("lm_head.trainable_tokens" in key for key in repeated)
    assert {k: tuple(v.shape) for k, v in mine.items()} == {
        k: tuple(v.shape) for k, v in theirs.items() if k not in repeated
    }
    for key, value in mine.items():
        # norms and encoders are computed in another order of the same sums
        roundings = 16 if "magnitude" in key or "lstm" in what else 0
        assert close(value, theirs[key], roundings), key
    fields_of_both = (my_config.keys() | their_config.keys()) - UNLIKE
    assert [k for k in fields_of_both if my_config.get(k) != their_config.get(k)] == []


@pytest.mark.parametrize("what", [name for name in CASES if name != "loha, kernels"])
def test_training_steps_match_pefts(what: str, tmp_path: Path) -> None:
    make, fields = CASES[what]
    base = make()
    before = traces(base)
    mine, theirs = new_adapter(base, fields), peft_creates(base, fields)
    assert sum(p.numel() for p in mine.parameters() if p.requires_grad) == sum(
        p.numel() for p in theirs.parameters() if p.requires_grad
    )
    assert {p.dtype for p in mine.parameters() if p.requires_grad} == {torch.float32}
    assert not any(p.requires_grad for p in base.parameters())
    losses = steps(mine, base)
    assert same_losses(losses, steps(theirs, base))
    assert losses[0] != losses[-1]
    mine_now, _ = written(mine, tmp_path / "mine")
    theirs_now, _ = written(theirs, tmp_path / "theirs")
    assert mine_now.keys() <= theirs_now.keys()
    # together: what a step cannot change (a bias before a softmax) is noise about zero
    mine_all, theirs_all = (
        torch.cat([one[key].flatten() for key in mine_now]) for one in (mine_now, theirs_now)
    )
    assert close(mine_all, theirs_all, 1024)

    answer = logits(mine, inputs_of(base))
    assert close(logits(peft_loads(base, tmp_path / "mine"), inputs_of(base)), answer)
    again = AdaptedModel(make())
    again.load_adapter(tmp_path / "mine", "it")
    assert close(logits(again, adapter="it"), answer)
    mine.detach()
    assert same_traces(before, traces(base))


def test_lohas_gradient_at_kernels_is_right_where_pefts_is_not() -> None:
    """PEFT has a backward of its own there, in which one half's core stands for the other's."""
    make, fields = CASES["loha, kernels"]
    base = make()
    mine, theirs = new_adapter(base, fields), peft_creates(base, fields)
    adapter = mine._host.adapters.by_name["it"]
    names = [n for n in adapter.resident.parameters if ".first.hada_w2_a" in n]
    (name,) = names
    with torch.no_grad():  # away from the start, where it would be zero
        adapter.resident.parameters[name.replace("w2_a", "w2_b")].fill_(0.3)
        dict(theirs.named_parameters())[
            name.replace("w2_a", "w2_b").replace(".it", ".default")
        ].fill_(0.3)
    value = adapter.resident.parameters[name]
    for model in (mine, theirs):
        model.eval()
        model(**inputs_of(base)).square().mean().backward()
    assert value.grad is not None
    step = torch.zeros_like(value)
    step[0, 0] = 1e-2
    ends: list[torch.Tensor] = []
    for sign in (1, -1):
        with torch.no_grad():
            value.add_(step * sign)
            ends.append(logits(mine, inputs_of(base)).double().square().mean())
            value.sub_(step * sign)
    measured = float((ends[0] - ends[1]) / 2e-2)
    assert float(value.grad[0, 0]) == pytest.approx(measured, rel=1e-2)
    peft = dict(theirs.named_parameters())[name.replace(".it", ".default")].grad
    assert float(peft[0, 0]) != pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("what", METHODS)
def test_a_mapping_of_the_fields_is_the_same(what: str) -> None:
    make, fields = METHODS[what]
    one, other = new_adapter(make(), fields), new_adapter(make(), peft_config(fields))
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())


def test_a_prompt_begins_with_the_tokens_of_a_text(tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path / "words")
    base = tiny_llama()
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=5,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="w7 w9",
        tokenizer_name_or_path=str(tmp_path / "words"),
    )
    model = new_adapter(base, config)
    embedded = base.get_input_embeddings()(torch.tensor([7, 9, 7, 9, 7]))
    (prompt,) = model._host.adapters.by_name["it"].resident.parameters.values()
    assert torch.equal(prompt, embedded)
    theirs = get_peft_model(tiny_llama(), config)
    assert torch.equal(prompt, theirs.prompt_encoder["default"].embedding.weight)


def test_a_half_precision_base_trains_in_float32(tmp_path: Path) -> None:
    for what, (make, fields) in METHODS.items():
        model = new_adapter(make().to(torch.bfloat16), fields)
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}, what
        losses = steps(model, model.base_model, count=1)
        assert all(p.grad is None or p.grad.isfinite().all() for p in trained) and losses


def test_another_dtype_can_be_requested() -> None:
    model = AdaptedModel(tiny_llama())
    model.add_adapter("it", METHODS["p-tuning"][1], dtype="bfloat16")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.bfloat16}


def test_the_encoder_is_trained_and_its_output_is_saved(tmp_path: Path) -> None:
    make, fields = METHODS["p-tuning"]
    model = new_adapter(make(), fields)
    names = {name.removeprefix("prompt_encoder.it.") for name in model.state_dict()}
    assert {"embedding.weight", "mlp_head.0.weight", "mlp_head.4.bias"} <= names
    mine, _ = written(model, tmp_path / "it")
    assert {k: tuple(v.shape) for k, v in mine.items()} == {"prompt_embeddings": (3, 16)}
    again = AdaptedModel(make())
    again.load_adapter(tmp_path / "it", "it", trainable=True)  # the tokens themselves, from here on
    assert {tuple(p.shape) for p in again.parameters() if p.requires_grad} == {(3, 16)}
    again.set_adapter("it")
    first = steps(again, again.base_model)[:1]
    assert same_losses(first, steps(model, model.base_model)[:1])


def test_mica_trains_only_one_factor_also_after_saving(tmp_path: Path) -> None:
    make, fields = CASES["lora, mica"]
    model = new_adapter(make(), fields)
    written(model, tmp_path / "it")
    again = AdaptedModel(make())
    again.load_adapter(tmp_path / "it", "it", trainable=True)
    for one in (model, again):
        trained = {n for n, p in one.named_parameters() if p.requires_grad}
        assert trained and all("lora_A" in n or "lora_embedding_A" in n for n in trained)
