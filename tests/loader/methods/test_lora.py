"""LoRA at each kind of module matches PEFT's logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    adapted,
    attach,
    by_peft_name,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tensors_of,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)

CONVOLUTIONS = ["first", "grouped", "line", "deep", "head"]
OPTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear"}),
    "rslora": (tiny_llama, {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": (
        tiny_llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 3},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 1},
        },
    ),
    "lora_bias": (tiny_gpt2, {"target_modules": ["c_attn"], "lora_bias": True}),
    "conv1d": (tiny_gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head": (tiny_llama, {"target_modules": ["lm_head", "q_proj"]}),
    "seq2seq": (tiny_t5, {"target_modules": ["q", "v", "wo"]}),
    "conv": (tiny_conv, {"target_modules": CONVOLUTIONS}),
    "conv_bias_lora_only": (tiny_conv, {"target_modules": ["first"], "bias": "lora_only"}),
    "conv_bias_all": (tiny_conv, {"target_modules": ["first"], "bias": "all"}),
    "bias_all": (tiny_bert, {"target_modules": ["query"], "bias": "all"}),
    "bias_lora_only": (tiny_bert, {"target_modules": ["query", "value"], "bias": "lora_only"}),
    "classifier": (tiny_bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "saved_norm": (tiny_conv, {"target_modules": ["first"], "modules_to_save": ["norm"]}),
    "saved_block": (
        tiny_llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["layers.1.mlp"]},
    ),
    "saved_head": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "saved_embedding": (
        tiny_llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_match_peft_and_the_base_is_unchanged(option: str, tmp_path: Path) -> None:
    make, config = OPTIONS[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", **config)
    assert differs(saved.answer, alone), "the adapter must matter"

    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert close(logits(model), saved.answer)
    assert model.findings == ()
    assert list(base.state_dict()) == list(before["state"])

    assert model.detach() is base
    assert same_traces(traces(base), before)
    assert torch.equal(logits(base), alone)


@pytest.mark.parametrize("modules", [["q_proj", "embed_tokens"], ["embed_tokens", "lm_head"]])
def test_tied_embeddings_match_peft(modules: list[str], tmp_path: Path) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    saved = peft_saves(base, tmp_path / "it", target_modules=modules)
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)


def test_saved_embedding_does_not_change_its_tied_head_as_in_peft(tmp_path: Path) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["q_proj"], modules_to_save=["embed_tokens"]
    )
    assert close(logits(adapted(base, saved)), saved.answer)


@pytest.mark.parametrize("tied", [False, True])
def test_embedding_resized_in_training_has_its_new_rows(tied: bool, tmp_path: Path) -> None:
    base = tiny_llama(tie_word_embeddings=tied)
    grown = tiny_llama(tie_word_embeddings=tied)
    grown.resize_token_embeddings(64)
    saved = peft_saves(
        grown, tmp_path / "it", target_modules=["q_proj"], save={"save_embedding_layers": True}
    )
    new_ids = {"input_ids": torch.tensor([[5, 61, 9, 63, 62]])}
    expected = logits(peft_loads(grown, saved.folder), new_ids)

    model = adapted(base, saved)
    assert close(logits(model, new_ids), expected)
    with pytest.raises(IndexError):  # the base still does not have these ids
        logits(base, new_ids)
    assert base.get_input_embeddings().num_embeddings == 61
    before = traces(tiny_llama(tie_word_embeddings=tied))["state"]
    model.detach()
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())


def test_tied_head_follows_a_resized_embedding_that_was_saved_once(tmp_path: Path) -> None:
    base, grown = tiny_llama(tie_word_embeddings=True), tiny_llama(tie_word_embeddings=True)
    grown.resize_token_embeddings(64)
    saved = peft_saves(
        grown, tmp_path / "it", target_modules=["q_proj"], save={"save_embedding_layers": True}
    )
    expected = logits(peft_loads(grown, saved.folder), inputs_of(base))
    from safetensors.torch import load_file

    tensors = load_file(saved.file)
    del tensors["base_model.model.lm_head.weight"]
    plan = saved.plan(base)
    plan = dataclasses.replace(
        plan, embeddings={k: v for k, v in plan.embeddings.items() if k != "lm_head"}
    )
    model = AdaptedModel(base)
    attach_adapter(model, "it", plan, tensors_of(tensors))
    assert close(logits(model, adapter="it"), expected)


def test_unchanged_saved_embedding_is_not_copied(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["embed_tokens"])
    assert any(n.endswith("embed_tokens.weight") for n in saved.plan(base).embeddings.values()) or (
        "model.embed_tokens" in saved.plan(base).embeddings
    )
    model = adapted(base, saved)
    assert model._host.adapters.by_name["it"].replaced == frozenset()
    assert close(logits(model), saved.answer)


@pytest.mark.parametrize(
    ("targets", "save"),
    [(["lm_head", "fc1"], {}), (["fc1"], {"save_embedding_layers": True})],
)
def test_saved_head_with_a_bias_matches_peft(
    targets: list[str], save: dict[str, Any], tmp_path: Path
) -> None:
    from support.tiny_models import tiny_model

    base = tiny_model("phi").eval()

    def train_bias(trained: Any) -> None:
        head = trained.base_model.model.lm_head
        getattr(head, "base_layer", head).bias.data += torch.linspace(-1, 1, 64)

    config: dict[str, Any] = {"target_modules": targets, "save": save}
    saved = peft_saves(base, tmp_path / "it", change=train_bias, **config)
    plan = saved.plan(base)
    assert plan.leftovers == ()
    assert set(plan.biases) == {"lm_head"}
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    before = traces(tiny_model("phi"))["state"]
    assert all(torch.equal(v, before[k]) for k, v in model.detach().state_dict().items())


def test_embedding_keeps_padding_row_max_norm_and_scale(tmp_path: Path) -> None:
    class Scaled(torch.nn.Embedding):
        embed_scale = 3.0

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * self.embed_scale

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = torch.nn.Embedding(20, 6, padding_idx=0, max_norm=0.5, norm_type=1.0)
            self.scaled = Scaled(20, 6, padding_idx=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.plain(x), self.scaled(x)], -1)

    torch.manual_seed(0)
    base = Net().eval()
    x = {"x": torch.tensor([[0, 1, 3, 19, 7]])}
    logits(base, x)  # max_norm renormalises rows in place at first use; do that now

    import support.peft_adapters as support

    original = support.inputs_of
    support.inputs_of = lambda model: x  # type: ignore[assignment]
    try:
        saved = peft_saves(base, tmp_path / "it", target_modules=["plain", "scaled"])
        model = adapted(base, saved)
        factors = {k: v.clone() for k, v in model.state_dict().items()}
        assert close(logits(model, x), saved.answer)
        assert all(torch.equal(v, factors[k]) for k, v in model.state_dict().items())
    finally:
        support.inputs_of = original


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_conv])
def test_several_active_adapters_match_pefts_sum(make: Callable[..., Any], tmp_path: Path) -> None:
    base = make()
    targets = {"tiny_llama": "all-linear", "tiny_gpt2": ["c_attn"], "tiny_conv": CONVOLUTIONS}
    settings = {"target_modules": targets[make.__name__]}
    one = peft_saves(base, tmp_path / "one", seed=1, **settings)
    two = peft_saves(base, tmp_path / "two", seed=2, r=2, lora_alpha=6, **settings)
    oracle = peft_loads(base, one.folder, two.folder)
    oracle.base_model.set_adapter(["one", "two"])

    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    model.set_adapter(["one", "two"])
    assert close(logits(model), logits(oracle, inputs_of(base)))


def test_weighted_adapter_matches_peft_with_a_larger_scale(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj", "embed_tokens"])
    oracle = peft_loads(base, saved.folder)
    for module in oracle.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["it"] *= 0.25  # PEFT's scale_layer skips embeddings

    model = adapted(base, saved)
    model.set_adapter({"it": 0.25})
    assert close(logits(model), logits(oracle, inputs_of(base)))
    model.set_adapter({"it": -1.0})
    assert torch.isfinite(logits(model)).all()
    model.set_adapter({"it": 0.0})
    assert torch.equal(logits(model), logits(base))


def test_half_precision_matches_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules="all-linear")
    half = base.to(torch.bfloat16)
    oracle = peft_loads(half, saved.folder)  # PEFT keeps the factors in float32 there
    model = adapted(half, saved, dtype=torch.float32)
    answer = logits(model)
    assert answer.dtype is torch.bfloat16
    assert close(answer, logits(oracle, inputs_of(base)), 4)
    assert close(answer, saved.answer, 32)


def test_autocast_dtypes_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules="all-linear")
    oracle, model = peft_loads(base, saved.folder), adapted(base, saved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, answer = logits(oracle, inputs_of(base)), logits(model)
    assert answer.dtype is expected.dtype
    assert close(answer, expected, 4)


def test_gradients_of_a_trainable_adapter_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj", "down_proj"])
    oracle = peft_loads(base, saved.folder)
    for name, parameter in oracle.named_parameters():
        parameter.requires_grad_("lora_" in name)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    oracle(**batch).loss.backward()

    model = adapted(base, saved, trainable=True)
    model(**batch).loss.backward()
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in by_peft_name(model).items() if p.grad is not None}
    assert ours.keys() == theirs.keys()  # PEFT's own names
    assert all(close(ours[n], theirs[n]) for n in ours)
    assert all(p.grad is None for p in base.parameters())


@pytest.mark.parametrize("grown", [False, True])
def test_embeddings_saved_with_the_factors_are_not_trained_as_in_peft(
    grown: bool, tmp_path: Path
) -> None:
    base, author = tiny_llama(), tiny_llama()
    if grown:
        author.resize_token_embeddings(64)
    saved = peft_saves(
        author, tmp_path / "it", target_modules=["q_proj"], save={"save_embedding_layers": True}
    )
    model = adapted(base, saved, trainable=True)
    trained = {name for name, one in by_peft_name(model).items() if one.requires_grad}
    assert trained == {name for name in model.state_dict() if ".lora_" in name}
    assert close(logits(model), saved.answer)


def test_dropout_acts_only_in_training(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    model = adapted(base, saved, trainable=True, dropout=0.5)
    assert close(logits(model), saved.answer)
    model.train()
    assert differs(logits(model), saved.answer)
