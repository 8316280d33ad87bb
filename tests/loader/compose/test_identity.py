"""One adapter at weight 1.0 and density 1 is itself, under every method and of every make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.combinations import ALL, options_of, products
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    inputs_of,
    logits,
    peft_saves,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
)

MAKES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (tiny_llama, {"target_modules": "all-linear"}),
    "rslora": (tiny_llama, {"target_modules": ["q_proj", "up_proj"], "use_rslora": True}),
    "patterns": (
        tiny_llama,
        {
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 6},
            "alpha_pattern": {"up_proj": 3},
        },
    ),
    "lora_bias": (tiny_llama, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "lm_head"]}),
    "whole head": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "biases": (tiny_gpt2, {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True}),
    "convolutions": (tiny_conv, {"target_modules": ["first", "grouped", "line", "deep", "head"]}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Saved]]:
    root: Path = tmp_path_factory.mktemp("made")
    return {
        name: (base, peft_saves(base(), root / name.replace(" ", "-"), **config))
        for name, (base, config) in MAKES.items()
    }


@pytest.mark.parametrize("make", list(MAKES))
@pytest.mark.parametrize("method", ALL)
def test_a_batch_of_one_adapter_gives_its_output(
    method: str, make: str, made: dict[str, tuple[Any, Saved]]
) -> None:
    base, saved = made[make]
    model = adapted(base(), saved)
    inputs = inputs_of(model.get_base_model())
    alone = logits(model, inputs)
    assert close(alone, saved.answer)
    model.define_composition("again", {"it": 1.0}, combine=method, **options_of(method, 1.0))
    again = logits(model, inputs, adapter="again")
    assert close(again, alone, 512 if method.endswith("svd") else 128)


@pytest.mark.parametrize("weight", [0.3, -0.8])
@pytest.mark.parametrize("make", ["plain", "rslora", "patterns", "lora_bias", "embedding"])
@pytest.mark.parametrize("method", ALL)
def test_one_adapter_at_a_weight_is_its_delta_times_the_weight(
    method: str, make: str, weight: float, made: dict[str, tuple[Any, Saved]]
) -> None:
    base, saved = made[make]
    model = adapted(base(), saved)
    wanted = logits(model, adapter={"it": weight})
    model.define_composition("some", {"it": weight}, combine=method, **options_of(method, 1.0))
    assert close(logits(model, adapter="some"), wanted, 512)
    if method == "sum":  # no adapter of its own
        return
    ours = products(model, "some")
    for module, delta in products(model, "it").items():
        assert close(ours[module], weight * delta)
    assert differs(wanted, logits(model, adapter=None), 1e-2)


@pytest.mark.parametrize("method", ["cat", "svd"])
@pytest.mark.parametrize("make", ["convolutions", "lora_bias", "biases"])
def test_two_adapters_give_the_exact_sum(
    method: str, make: str, made: dict[str, tuple[Any, Saved]], tmp_path: Path
) -> None:
    base, saved = made[make]
    other = peft_saves(base(), tmp_path / "other", seed=9, **{**MAKES[make][1], "r": 2})
    model = adapted(base(), saved)
    attach(model, other, "other")
    of = {"it": 0.6, "other": -0.3}
    rank = {"svd_rank": 6} if method == "svd" else {}
    model.define_composition("mix", of, combine=method, **rank)
    inputs = inputs_of(model.get_base_model())
    assert close(logits(model, inputs, adapter="mix"), logits(model, inputs, adapter=of))
