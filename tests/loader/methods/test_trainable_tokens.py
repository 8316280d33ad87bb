"""Trainable tokens: PEFT's logits, alone and in a LoRA, with heads tied as in PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from peft import TrainableTokensConfig
from safetensors.torch import load_file
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    Saved,
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
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)

ROWS = sorted({int(i) for i in inputs_of(tiny_llama())["input_ids"][0, :3]})
"""Tokens of the inputs."""


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


LORA: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "list": (tiny_llama, {"trainable_token_indices": ROWS}),
    "unsorted": (tiny_llama, {"trainable_token_indices": ROWS[::-1]}),
    "tied": (tied_llama, {"trainable_token_indices": ROWS}),
    "by name": (tied_llama, {"trainable_token_indices": {"embed_tokens": ROWS}}),
    "both, other rows": (
        tied_llama,
        {"trainable_token_indices": {"embed_tokens": ROWS, "lm_head": [4, 60]}},
    ),
    "both, same rows": (
        tied_llama,
        {"trainable_token_indices": {"embed_tokens": ROWS, "lm_head": ROWS}},
    ),
    "the head": (tiny_llama, {"trainable_token_indices": {"lm_head": [4, 0]}}),
    "with saved": (
        tiny_llama,
        {"trainable_token_indices": ROWS, "modules_to_save": ["lm_head"], "use_rslora": True},
    ),
    "with DoRA": (tiny_llama, {"trainable_token_indices": ROWS, "use_dora": True}),
    "wte": (tiny_gpt2, {"trainable_token_indices": ROWS, "target_modules": ["c_attn"]}),
    "bert": (tiny_bert, {"trainable_token_indices": ROWS, "target_modules": ["query"]}),
    "t5": (tiny_t5, {"trainable_token_indices": ROWS, "target_modules": ["q"]}),
}


@pytest.mark.parametrize("option", LORA)
def test_rows_in_a_lora_match_peft(option: str, tmp_path: Path) -> None:
    make, config = LORA[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", **{"target_modules": ["q_proj"], **config})
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert model.findings == ()
    assert same_traces(traces(model.detach()), before)


@pytest.mark.parametrize("make", [tiny_llama, tied_llama, tiny_t5, tiny_gpt2, tiny_bert])
def test_rows_alone_match_peft(make: Callable[..., Any], tmp_path: Path) -> None:
    base = make()
    alone = logits(base)
    saved = peft_saves(base, tmp_path / "it", kind=TrainableTokensConfig, token_indices=ROWS)
    assert differs(saved.answer, alone), "the adapter must matter"
    model = adapted(base, saved)
    assert model.adapters["it"].methods == ("TRAINABLE_TOKENS",)
    assert close(logits(model), saved.answer)
    assert model.findings == ()


def test_rows_follow_max_norm_and_scale_of_the_embedding() -> None:
    class Scaled(torch.nn.Embedding):
        embed_scale = torch.tensor(3.0)

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * self.embed_scale

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = Scaled(20, 6, padding_idx=0, max_norm=0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.embed_tokens(x)

    base, x = Net().eval(), torch.tensor([[0, 1, 3, 19, 7]])
    base(x)  # renormalises the rows in place; do that now
    from support.method_fit import planned

    rows = torch.randn(2, 6)
    tensors = tensors_of({"embed_tokens.trainable_tokens_delta": rows})
    config = {"token_indices": [3, 0], "target_modules": ["embed_tokens"]}
    plan = planned("TRAINABLE_TOKENS", config, tensors.header.tensors)
    model = AdaptedModel(base)
    attach_adapter(model, "it", plan, tensors)
    answer = model(x, adapter="it")
    bounded = rows * (0.5 / rows.norm(dim=1, keepdim=True).clamp(min=0.5))
    assert close(answer[0, [2, 0]], bounded * 3)
    assert torch.equal(answer[0, [1, 3, 4]], base(x)[0, [1, 3, 4]])


def test_sum_with_a_lora_matches_the_sum_of_deltas(tmp_path: Path) -> None:
    base = tiny_llama()
    one = peft_saves(base, tmp_path / "one", kind=TrainableTokensConfig, token_indices=ROWS)
    two = peft_saves(base, tmp_path / "two", target_modules=["embed_tokens"], r=2)
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    embedding = base.model.embed_tokens.weight
    expected = tiny_llama()
    tensors = load_file(two.file)
    a, b = (tensors[f"base_model.model.model.embed_tokens.lora_embedding_{x}"] for x in ("A", "B"))
    with torch.no_grad():
        weight = expected.model.embed_tokens.weight
        weight += (b @ a).t() * 4
        (rows,) = load_file(one.file).values()
        weight[ROWS] += 0.5 * (rows - embedding[ROWS])
    for order in ({"one": 0.5, "two": 1.0}, {"two": 1.0, "one": 0.5}):
        model.set_adapter(order)
        assert close(logits(model), logits(expected))


def test_tied_rows_are_one_parameter_in_training(tmp_path: Path) -> None:
    base = tied_llama()
    for kind, config in (
        (TrainableTokensConfig, {"token_indices": ROWS}),
        (None, {"target_modules": ["q_proj"], "trainable_token_indices": ROWS}),
    ):
        saved = peft_saves(base, tmp_path / str(kind), kind=kind, **config)
        oracle = peft_loads(base, saved.folder)
        name = "trainable_tokens_delta"
        for n, parameter in oracle.named_parameters():
            parameter.requires_grad_(name in n)
        batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
        oracle(**batch).loss.backward()
        (theirs,) = [p.grad for n, p in oracle.named_parameters() if name in n]
        model = adapted(base, saved, trainable=True)
        model(**batch).loss.backward()
        ((ours_name, ours),) = [(n, p.grad) for n, p in by_peft_name(model).items() if name in n]
        assert ours_name in {
            n.replace(saved.folder.name.replace(".", "_"), "it")
            for n, _ in oracle.named_parameters()
        }
        assert close(ours, theirs)
        model.detach()


def test_bfloat16_base_matches_peft(tmp_path: Path) -> None:
    base = tied_llama()
    saved = peft_saves(base, tmp_path / "it", kind=TrainableTokensConfig, token_indices=ROWS)
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, saved.folder), inputs_of(base))
    answer = logits(adapted(half, saved))
    assert answer.dtype is torch.bfloat16
    assert close(answer, oracle, 4)


def test_index_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    base, grown = tiny_llama(), tiny_llama()
    grown.resize_token_embeddings(64)
    saved = peft_saves(grown, tmp_path / "it", kind=TrainableTokensConfig, token_indices=[5, 62])
    with pytest.raises(AttachError) as caught:
        adapted(base, saved)
    assert "61 rows" in str(caught.value)


def test_tied_rows_that_differ_are_refused(tmp_path: Path) -> None:
    base = tied_llama()
    saved = peft_saves(base, tmp_path / "it", kind=TrainableTokensConfig, token_indices=ROWS)
    tensors = load_file(saved.file)
    tensors["base_model.model.lm_head.trainable_tokens_delta"] += 1
    with pytest.raises(AttachError) as caught:
        attach_adapter(AdaptedModel(base), "it", saved.plan(base), tensors_of(tensors))
    assert [f.code for f in caught.value.findings] == ["AD750"]


def test_rows_equal_to_the_base_are_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=TrainableTokensConfig, token_indices=ROWS)
    ((key, _),) = load_file(saved.file).items()
    same = tensors_of({key: base.model.embed_tokens.weight.detach()[ROWS].clone()})
    with pytest.raises(AttachError, match="changes nothing anywhere"):
        attach_adapter(AdaptedModel(base), "it", saved.plan(base), same)
    assert isinstance(saved, Saved)


FOUR, FIVE = [3, 4], [5, 6]


def two_of_tokens(base: Any, folder: Path, one: list[int], two: list[int]) -> tuple[Any, Any]:
    saved = [
        peft_saves(base, folder / name, seed=n, kind=TrainableTokensConfig, token_indices=indices)
        for n, (name, indices) in enumerate({"one": one, "two": two}.items())
    ]
    model = AdaptedModel(base)
    for name, adapter in zip(("one", "two"), saved, strict=True):
        attach(model, adapter, name)
    return model, peft_loads(tiny(base), *(adapter.folder for adapter in saved))


def tiny(base: Any) -> Any:
    return tied_llama() if base.config.tie_word_embeddings else tiny_llama()


@pytest.mark.parametrize("make", [tiny_llama, tied_llama])
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_different_tokens_of_two_adapters_are_merged_one_after_the_other(
    order: tuple[str, str], make: Callable[..., Any], tmp_path: Path
) -> None:
    base, inputs = make(), {"input_ids": torch.tensor([[3, 4, 5, 6, 7]])}
    before, alone = traces(base), logits(base, inputs)
    model, oracle = two_of_tokens(base, tmp_path, FOUR, FIVE)
    for name in order:
        model.merge_adapter(name)
        oracle.merge_adapter([name])
    assert model.merged_adapters == list(order)
    assert close(logits(model, inputs), logits(oracle, inputs))
    model.unmerge_adapter()
    assert torch.equal(logits(model, inputs, adapter=None), alone)
    model.merge_adapter(order[0])
    beside = logits(model, inputs, adapter=order[1])
    assert close(beside, logits(oracle, inputs))
    model.unmerge_adapter()
    assert same_traces(traces(model.detach()), before)


def test_same_token_of_two_adapters_cannot_be_merged_twice(tmp_path: Path) -> None:
    model, oracle = two_of_tokens(tiny_llama(), tmp_path, FOUR, [4, 5])
    oracle.merge_adapter(["one"])
    with pytest.raises(ValueError, match="already defined"):
        oracle.merge_adapter(["two"])
    model.set_adapter(None)
    model.merge_adapter("one")
    with pytest.raises(RoutingError) as caught:
        model.merge_adapter("two")
    assert {f.code for f in caught.value.findings} == {"AD756"}
    assert model.merged_adapters == ["one"]


def test_tokens_are_not_merged_after_a_lora_of_the_same_embedding(tmp_path: Path) -> None:
    base = tiny_llama()
    one = peft_saves(base, tmp_path / "one", kind=TrainableTokensConfig, token_indices=FOUR)
    two = peft_saves(base, tmp_path / "two", target_modules=["embed_tokens"], r=2)
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    model.merge_adapter("two")
    with pytest.raises(RoutingError):
        model.merge_adapter("one")
