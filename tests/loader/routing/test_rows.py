"""A batch whose rows name their own adapters: each row equals its own single run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from adapterdock.registry.files.facts import AdapterPlan, SitePlan
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import peft_saves, tensors_of, tiny_bert, tiny_gpt2, tiny_llama


def dressed(
    base: Any, folder: Path, configs: dict[str, dict[str, Any]], **options: Any
) -> AdaptedModel:
    """``base`` with an adapter of each config, as PEFT saved it, none of them active."""
    model = AdaptedModel(base)
    for seed, (name, config) in enumerate(configs.items()):
        saved = peft_saves(base, folder / name, seed=seed, **config)
        attach_adapter(model, name, saved.plan(base), saved.tensors(), **options)
    return model


LLAMA = {
    "small": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    "large": {"r": 6, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj", "o_proj"]},
    "tokens": {"r": 3, "target_modules": ["embed_tokens", "k_proj"]},
    "head": {"r": 2, "target_modules": ["up_proj"], "modules_to_save": ["lm_head"]},
    "lora_only": {"r": 2, "target_modules": ["gate_proj"]},
}


@pytest.fixture
def llama(tmp_path: Path) -> AdaptedModel:
    model = dressed(tiny_llama(), tmp_path, LLAMA)
    model.define_composition("both", {"small": 0.5, "large": -1.5})
    return model


def ids(rows: int, length: int = 7) -> torch.Tensor:
    return torch.randint(3, 61, (rows, length), generator=torch.Generator().manual_seed(rows))


def alone(model: AdaptedModel, inputs: torch.Tensor, names: list[str | None]) -> torch.Tensor:
    """Each row in a batch of its own."""
    rows = [
        model(input_ids=inputs[at : at + 1], adapter=name).logits for at, name in enumerate(names)
    ]
    return torch.cat(rows)


EVERYTHING: list[str | None] = [
    "small",
    "__base__",
    "large",
    "both",
    "tokens",
    "head",
    None,
    "small",
]


@torch.no_grad()
def test_each_row_equals_its_own_single_run(llama: AdaptedModel) -> None:
    inputs = ids(8)
    together = llama(input_ids=inputs, adapter_names=EVERYTHING).logits
    assert close(together, alone(llama, inputs, EVERYTHING))
    assert differs(together[0], together[1], 1e-2)


@torch.no_grad()
def test_base_rows_match_the_base_and_rows_are_independent(llama: AdaptedModel) -> None:
    inputs = ids(8)
    one = llama(input_ids=inputs, adapter_names=EVERYTHING).logits
    others = inputs.clone()
    others[2:] = ids(6, 7).flip(0)
    two = llama(input_ids=others, adapter_names=[*EVERYTHING[:2], *["large"] * 6]).logits
    assert close(one[:2], two[:2])
    base = llama.base_model(input_ids=inputs).logits
    assert close(one[1], base[1])


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_bert])
@torch.no_grad()
def test_conv1d_pooled_heads_and_trained_biases_have_rows_too(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    base = make()
    linear = ["c_attn", "c_proj"] if make is tiny_gpt2 else ["query", "dense"]
    more = {"modules_to_save": ["classifier"]} if make is tiny_bert else {"fan_in_fan_out": True}
    extra = {"fan_in_fan_out": True} if make is tiny_gpt2 else {}
    configs = {
        "a": {"r": 2, "target_modules": linear, **more},
        "b": {"r": 4, "target_modules": linear[:1], "bias": "lora_only", **extra},
    }
    model = dressed(base, tmp_path, configs)
    names: list[str | None] = ["a", "b", None, "a"]
    together = model(input_ids=ids(4), adapter_names=names).logits
    assert close(together, alone(model, ids(4), names))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 3},
        {"use_cache": False},
    ],
    ids=str,
)
@torch.no_grad()
def test_generate_gives_each_prompt_what_it_gets_alone(
    llama: AdaptedModel, options: dict[str, Any]
) -> None:
    inputs, names = ids(4), ["large", None, "both", "tokens"]
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, **options}
    together = llama.generate(input_ids=inputs, adapter_names=names, **settings)
    rows = [
        llama.generate(input_ids=inputs[at : at + 1], adapter=name, **settings)
        for at, name in enumerate(names)
    ]
    assert torch.equal(together, torch.cat(rows))


@torch.no_grad()
def test_t5_generates_by_rows_through_encoder_and_decoder(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=61, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4,
        decoder_start_token_id=0, initializer_factor=2.0,
    )  # fmt: skip
    base = T5ForConditionalGeneration(config).eval()
    model = dressed(
        base,
        tmp_path,
        {"a": {"target_modules": ["q", "v"]}, "b": {"target_modules": ["o", "wi"], "r": 2}},
    )
    names: list[str | None] = ["a", None, "b"]
    for beams in (1, 3):
        settings = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": beams}
        together = model.generate(input_ids=ids(3), adapter_names=names, **settings)
        rows = [
            model.generate(input_ids=ids(3)[at : at + 1], adapter=name, **settings)
            for at, name in enumerate(names)
        ]
        assert torch.equal(together, torch.cat(rows))


def test_one_name_for_all_rows_is_not_a_mixed_batch(llama: AdaptedModel) -> None:
    with torch.no_grad():
        together = llama(input_ids=ids(3), adapter_names=["large"] * 3).logits
        assert torch.equal(together, llama(input_ids=ids(3), adapter="large").logits)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["small", "large"], "AD770"),
        (["small", "large", "small", "nobody"], "AD730"),
        ([], "AD731"),
        ("small", "AD731"),
    ],
    ids=str,
)
def test_names_that_are_not_the_rows_are_refused(
    llama: AdaptedModel, names: Any, code: str
) -> None:
    for call in (llama, llama.generate):
        with pytest.raises(RoutingError) as caught:
            call(input_ids=ids(4), adapter_names=names)
        assert caught.value.code == code


def test_rules_apply_to_each_row_and_a_disabled_model_refuses_names(llama: AdaptedModel) -> None:
    from adapterdock.manifests.findings.errors import PolicyError
    from adapterdock.manifests.findings.rules import EXCLUSIVE

    llama.rules = lambda active: (
        [EXCLUSIVE.finding("no")] if {"small", "large"} <= active.keys() else []
    )
    with pytest.raises(PolicyError):
        llama(input_ids=ids(2), adapter_names=["both", "small"])
    llama(input_ids=ids(2), adapter_names=["large", "small"])
    llama.disable_adapters()
    with pytest.raises(RoutingError):
        llama(input_ids=ids(2), adapter_names=["large", "small"])


class Flat(torch.nn.Module):
    """A model whose layer sees all tokens of all rows in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(8, 8)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8)])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.inner(inputs)
        return self.layers[0](x.reshape(-1, 8)).view(x.shape)


@torch.no_grad()
def test_a_module_that_does_not_see_the_rows_is_refused_and_one_that_does_is_not(
    tmp_path: Path,
) -> None:
    model = AdaptedModel(Flat().eval())
    for name, module in (("rows", "inner"), ("flat", "layers.0")):
        site = SitePlan(module, "LORA", {"A": "a", "B": "b"}, 2, 4.0, 2.0)
        factors = tensors_of({"a": torch.randn(2, 8), "b": torch.randn(8, 2)})
        attach_adapter(model, name, AdapterPlan((site,)), factors)
    names: list[str | None] = ["rows", None]
    for tokens in (2, 1, 3):  # two tokens of two rows: four, and no multiple tells them apart
        x = torch.randn(2, tokens, 8)
        together = model(x, adapter_names=names)
        single = torch.cat([model(x[:1], adapter="rows"), model(x[1:], adapter=None)])
        assert close(together, single)
    for tokens in (3, 1):
        with pytest.raises(RoutingError) as caught:
            model(torch.randn(2, tokens, 8), adapter_names=["flat", None])
        assert caught.value.code == "AD771"


def test_gradients_reach_only_each_rows_own_adapter(tmp_path: Path) -> None:
    base = tiny_llama()
    model = dressed(base, tmp_path, {"a": LLAMA["small"], "b": LLAMA["large"]}, trainable=True)
    inputs = ids(3)
    model(input_ids=inputs, adapter_names=["a", None, "b"]).logits[0].sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if not n.startswith("base_model.lm")}
    mine = {n: g for n, g in grads.items() if ".a." in n}
    theirs = {n: g for n, g in grads.items() if ".b." in n}
    assert all(g is not None and g.abs().sum() > 0 for n, g in mine.items())
    assert all(g is None or not g.any() for g in theirs.values())


def test_values_that_change_are_seen_by_the_next_batch(tmp_path: Path) -> None:
    model = dressed(tiny_llama(), tmp_path, {"a": LLAMA["small"], "b": LLAMA["large"]})
    names: list[str | None] = ["a", "b"]
    with torch.no_grad():
        before = model(input_ids=ids(2), adapter_names=names).logits
        state = {k: v * 2 for k, v in model.state_dict().items()}
        model.load_state_dict(state)
        after = model(input_ids=ids(2), adapter_names=names).logits
        assert close(after, alone(model, ids(2), names))
        assert differs(after, before)


def test_gathered_factors_are_limited_and_dropped_with_their_adapter(
    llama: AdaptedModel,
) -> None:
    cache = llama._host.adapters.gathered
    with torch.no_grad():
        llama(input_ids=ids(2), adapter_names=["small", "large"])
        ((_, first),) = cache._kept.items()
        assert first.nbytes > 0
        cache.limit = first.nbytes
        llama(input_ids=ids(2), adapter_names=["large", "small"])
        assert len(cache._kept) == 1
        llama.delete_composition("both")
        llama.delete_adapter("tokens")
        assert not cache._kept


@torch.no_grad()
def test_threads_with_different_rows_are_independent(llama: AdaptedModel) -> None:
    wanted = {
        name: llama(input_ids=ids(2), adapter_names=[name, None]).logits
        for name in ("small", "large", "tokens")
    }
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(10):
            with torch.no_grad():
                got = llama(input_ids=ids(2), adapter_names=[name, None]).logits
            if not torch.equal(got, wanted[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@torch.no_grad()
def test_a_cache_made_under_one_routing_is_refused_under_another(llama: AdaptedModel) -> None:
    prompt, token = ids(2), ids(2, 1)

    def filled(**how: Any) -> Any:
        return llama(input_ids=prompt, use_cache=True, **how).past_key_values

    def go_on(cache: Any, **how: Any) -> None:
        llama(input_ids=token, past_key_values=cache, **how)

    go_on(filled(adapter="small"), adapter="small")
    go_on(filled(adapter=None), adapter=None)
    go_on(filled(adapter_names=["small", None]), adapter_names=["small", None])
    llama.base_model(input_ids=token, past_key_values=filled(adapter=None))
    base, rows = "the base alone", ["small", None]
    for made, then, found, expected in (
        ({"adapter": "small"}, {"adapter": "large"}, "small", "large"),
        ({"adapter": "small"}, {"adapter": {"small": 0.5}}, "small", "0.5 small"),
        ({"adapter": None}, {"adapter": ["small", "large"]}, base, "small + large"),
        ({"adapter": "small"}, {"adapter": None}, "small", base),
        (
            {"adapter_names": rows},
            {"adapter_names": rows[::-1]},
            f"[small, {base}]",
            f"[{base}, small]",
        ),
    ):
        with pytest.raises(RoutingError) as caught:
            go_on(filled(**made), **then)
        assert caught.value.code == "AD772"
        (finding,) = caught.value.findings
        assert (finding.found, finding.expected) == (found, expected)
    with pytest.raises(RoutingError):
        llama.base_model(input_ids=token, past_key_values=filled(adapter="small"))


@torch.no_grad()
def test_an_emptied_cache_may_be_filled_by_another(llama: AdaptedModel) -> None:
    cache = llama(input_ids=ids(2), use_cache=True, adapter="small").past_key_values
    cache.crop(-7)
    llama(input_ids=ids(2), past_key_values=cache, adapter="large")
    with pytest.raises(RoutingError):
        llama(input_ids=ids(2), past_key_values=cache, adapter="small")
