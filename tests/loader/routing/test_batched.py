"""Rows of a mixed batch, method by method: each equals its own single run, without a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from support.mixed_rows import LINEAR, alone, answer, dress, split_sites
from support.near import HALVES, close, differs
from support.peft_adapters import ids, inputs_of, one_layer, tiny_gpt2, tiny_llama

ROWS: list[str | None] = ["a", None, "both", "b", "a", "half"]


def llama_with(folder: Path, method: str, base: Any = None, **how: Any) -> AdaptedModel:
    """A Llama with ``a`` and ``b`` of the method, and sums of them where they add up."""
    model = AdaptedModel(tiny_llama() if base is None else base)
    for name, (kind, config) in zip("ab", LINEAR[method], strict=True):
        dress(model, folder, name, kind, config, **how)
    whole = method == "whole modules"
    model.define_composition("both", {"a": 1.0, "b": 1.0} if whole else {"a": 0.5, "b": -1.5})
    model.define_composition("half", {"b": 1.0 if whole else 0.5})
    return model


@pytest.mark.parametrize("method", LINEAR)
@torch.no_grad()
def test_each_row_equals_its_own_single_run(tmp_path: Path, method: str) -> None:
    model = llama_with(tmp_path, method)
    inputs = {"input_ids": ids(len(ROWS))}
    together = model(**inputs, adapter_names=ROWS).logits
    expected = alone(model, inputs, ROWS)
    assert close(together, expected)
    assert differs(expected[0], expected[4])  # other tokens
    base = model.base_model(**inputs).logits
    for row in (0, 2, 3, 5):
        assert differs(together[row], base[row])
    assert split_sites(model) == set()
    assert model.findings == ()


@pytest.mark.parametrize("method", LINEAR)
@torch.no_grad()
def test_generate_gives_each_prompt_what_it_gets_alone(tmp_path: Path, method: str) -> None:
    model = llama_with(tmp_path, method)
    inputs = {"input_ids": ids(len(ROWS))}
    for options in (
        {},
        {"num_beams": 3},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 2},
    ):
        settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, **options}
        together = model.generate(**inputs, adapter_names=ROWS, **settings)
        rows = [
            model.generate(input_ids=inputs["input_ids"][at : at + 1], adapter=name, **settings)
            for at, name in enumerate(ROWS)
        ]
        assert torch.equal(together, torch.cat(rows)), options


@pytest.mark.parametrize("method", LINEAR)
@torch.no_grad()
def test_another_rows_adapter_changes_nothing(tmp_path: Path, method: str) -> None:
    model = llama_with(tmp_path, method)
    inputs = {"input_ids": ids(3)}
    one = model(**inputs, adapter_names=["a", None, "b"]).logits
    two = model(**inputs, adapter_names=["a", None, "half"]).logits
    assert torch.equal(one[:2], two[:2])  # the same shapes: the same bits
    three = model(**inputs, adapter_names=["a", None, "both"]).logits
    assert close(one[:2], three[:2])
    assert differs(one[2], two[2]) or method == "whole modules"


@pytest.mark.parametrize("method", LINEAR)
@torch.no_grad()
def test_half_precision_rows_match_as_closely_as_the_dtype_allows(
    tmp_path: Path, method: str
) -> None:
    for dtype in (None, torch.float32):
        folder = tmp_path / str(dtype)
        model = AdaptedModel(tiny_llama())
        for name, (kind, config) in zip("ab", LINEAR[method], strict=True):
            dress(model, folder, name, kind, config, dtype=dtype)
        half = AdaptedModel(model.detach().to(torch.bfloat16))
        for name in "ab":
            half.load_adapter(folder / name, name, dtype=dtype)
        inputs, names = {"input_ids": ids(4)}, ["a", "b", None, "a"]
        together = half(**inputs, adapter_names=names).logits
        expected = alone(half, inputs, names)
        assert together.dtype is torch.bfloat16
        assert close(together, expected, HALVES)
        assert differs(expected[0], expected[1], 1e-2)


@torch.no_grad()
def test_all_methods_meet_in_one_batch(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_llama())
    for method, (one, _) in LINEAR.items():
        kind, config = one
        dress(model, tmp_path, method.replace(" ", "_"), kind, config)
    model.define_composition("several", {"dora": 0.5, "ia3": -1.0, "oft": 2.0, "lokr": 1.0})
    model.define_composition("twice", {"whole_modules": 1.0, "loha": 1.0})
    names: list[str | None] = [*model.adapters, "several", None, "twice"]
    inputs = {"input_ids": ids(len(names))}
    together = model(**inputs, adapter_names=names).logits
    assert close(together, alone(model, inputs, names))
    assert split_sites(model) == set()


PADDED: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize("method", ["dora", "ia3", "oft", "tokens"])
@torch.no_grad()
def test_prompts_of_different_lengths_can_share_a_batch(tmp_path: Path, method: str) -> None:
    model = llama_with(tmp_path, method)
    prompts = [ids(1, length) + length % 3 for length in (7, 3, 5)]
    padded = torch.cat([torch.nn.functional.pad(p, (7 - p.shape[1], 0)) for p in prompts])
    names: list[str | None] = ["a", None, "both"]
    together = model.generate(
        input_ids=padded, attention_mask=(padded != 0).long(), adapter_names=names, **PADDED
    )
    for row, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
        single = model.generate(input_ids=prompt, adapter=name, **PADDED)
        assert torch.equal(together[row, 7:], single[0, prompt.shape[1] :])


CONVOLUTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lora": (None, {"r": 2}),
    "larger": (None, {"r": 4, "lora_bias": True}),
    "dora": (None, {"r": 2, "use_dora": True}),
    "bias": (None, {"r": 2, "bias": "lora_only"}),
    "ia3": (peft.IA3Config, {"feedforward_modules": []}),
    "ia3_input": (peft.IA3Config, {"feedforward_modules": ["layer"]}),
    "loha": (peft.LoHaConfig, {"r": 2}),
    "loha_core": (peft.LoHaConfig, {"r": 2, "use_effective_conv2d": True}),
    "lokr": (peft.LoKrConfig, {"r": 2}),
    "adalora": (peft.AdaLoraConfig, {"init_r": 2, "total_step": 9}),
    "oft": (peft.OFTConfig, {"r": 0, "oft_block_size": 4}),
}
TAKES = {
    "conv": {*CONVOLUTIONS} - {"oft"},
    "grouped": {"lora", "larger", "dora", "bias", "ia3"},
    "line": {"lora", "larger", "dora", "bias", "loha", "lokr"},
    "square": {*CONVOLUTIONS},
}


@pytest.mark.parametrize("layer", TAKES)
@torch.no_grad()
def test_convolutions_have_rows_too(tmp_path: Path, layer: str) -> None:
    base = one_layer("conv" if layer == "square" else layer)
    if layer == "square":  # as OFT wants it
        base.layer = torch.nn.Conv2d(4, 6, 2).eval()
    model = AdaptedModel(base)
    for name in sorted(TAKES[layer]):
        kind, config = CONVOLUTIONS[name]
        dress(model, tmp_path, name, kind, {"target_modules": ["layer"], **config})
    model.define_composition("sum", {"lora": 0.5, "larger": 2.0, "dora": -1.0})
    names: list[str | None] = [*model.adapters, None, "sum", "lora"]
    example = inputs_of(base)["x"]
    torch.manual_seed(0)
    inputs = {"x": torch.randn(len(names), *example.shape[1:])}
    together = model(**inputs, adapter_names=names)
    assert close(together, alone(model, inputs, names))
    assert split_sites(model) == set()


@torch.no_grad()
def test_conv1d_rows_of_gpt2(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_gpt2())
    of = {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}
    dress(model, tmp_path, "dora", None, {**of, "use_dora": True})
    dress(model, tmp_path, "ia3", peft.IA3Config, {**of, "feedforward_modules": ["mlp.c_proj"]})
    names: list[str | None] = ["dora", None, "ia3", "dora"]
    inputs = {"input_ids": ids(4)}
    together = answer(model(**inputs, adapter_names=names))
    assert close(together, alone(model, inputs, names))


def test_gradients_of_each_method_are_those_of_the_single_runs(tmp_path: Path) -> None:
    for method in LINEAR.keys() - {"adalora"}:
        model = llama_with(tmp_path / method.replace(" ", "_"), method, trainable=True)
        inputs, names = {"input_ids": ids(3)}, ["a", None, "b"]

        def gradients(losses: torch.Tensor, model: AdaptedModel = model) -> dict[str, Any]:
            own = {n: p for n, p in model.named_parameters() if p.requires_grad}
            found = torch.autograd.grad(losses, list(own.values()), allow_unused=True)
            return {n: g for n, g in zip(own, found, strict=True) if g is not None}

        one = gradients(model(**inputs, adapter_names=names).logits.sin().sum())
        two = gradients(alone(model, inputs, names).sin().sum())
        assert two and one.keys() >= two.keys()
        for name, gradient in one.items():
            expected = two.get(name, torch.zeros_like(gradient))
            assert close(gradient, expected), (method, name)


def test_rows_under_dropout_are_split_and_still_train_their_own(tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj"], "lora_dropout": 0.5}
    model = AdaptedModel(tiny_llama())
    for name in "ab":
        dress(model, tmp_path, name, None, config, trainable=True, dropout=0.5)
    model.train()
    out = model(input_ids=ids(3), adapter_names=["a", None, "b"]).logits
    out[0].sum().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched and all(".a." in name for name in touched)
