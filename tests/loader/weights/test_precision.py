"""Every precision of a base with every precision of an adapter: correct logits, and the base's
dtypes at every boundary between modules.

The reference is PEFT in float32. The coarsest dtype that takes part sets the tolerance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapterdock.loader.base.float32 import keep_float32
from support.near import ROUNDINGS, close
from support.peft_adapters import (
    adapted,
    attach,
    ids,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)
from torch import nn

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
NEAR = {F32: ROUNDINGS, F16: 32, BF16: 32}
"""Rounding steps of the dtype: half precision also rounds the values between modules."""

KEPT: dict[str, tuple[str, ...]] = {
    "none": (),
    "norms": ("*norm*",),
    "nearly all": ("*norm*", "lm_head", "*embed_tokens", "*self_attn", "*mlp"),
}
CASES: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": "all-linear"},
    "lora with biases": {"target_modules": "all-linear", "lora_bias": True},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "dora on embeddings": {"target_modules": ["embed_tokens"], "use_dora": True},
    "saved modules": {
        "target_modules": ["q_proj"],
        "modules_to_save": [
            "lm_head",
            "embed_tokens",
            "model.norm",
            "layers.1.mlp",
            "layers.0.input_layernorm",
        ],
    },
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 5]}},
    "ia3": {
        "kind": peft.IA3Config,
        "target_modules": ["k_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "loha": {"kind": peft.LoHaConfig, "target_modules": ["q_proj"], "r": 2},
    "lokr": {"kind": peft.LoKrConfig, "target_modules": ["q_proj"], "r": 2},
    "oft": {
        "kind": peft.OFTConfig,
        "target_modules": ["q_proj"],
        "r": 0,
        "oft_block_size": 4,
    },
    "vera": {"kind": peft.VeraConfig, "target_modules": ["q_proj"], "r": 4},
    "adalora": {"kind": peft.AdaLoraConfig, "target_modules": ["q_proj"], "total_step": 10},
    "ln tuning": {"kind": peft.LNTuningConfig, "target_modules": ["input_layernorm"]},
    "prompt": {
        "kind": peft.PromptTuningConfig,
        "num_virtual_tokens": 3,
        "task_type": "CAUSAL_LM",
    },
    "prefix": {
        "kind": peft.PrefixTuningConfig,
        "num_virtual_tokens": 3,
        "task_type": "CAUSAL_LM",
    },
}


def coarsest(*dtypes: torch.dtype | None) -> torch.dtype:
    return max((d for d in dtypes if d is not None), key=lambda d: torch.finfo(d).eps)


def floats(value: Any) -> list[torch.dtype]:
    """The dtypes of all floating tensors in a module's output."""
    if isinstance(value, torch.Tensor):
        return [value.dtype] if value.is_floating_point() else []
    parts = value.values() if isinstance(value, dict) else value
    return [d for part in parts for d in floats(part)] if isinstance(parts, _MANY) else []


_MANY = (tuple, list, type({}.values()), type({}.keys()))


def boundaries(base: nn.Module, run: Callable[[], Any]) -> dict[str, set[torch.dtype]]:
    """The dtypes that each module of ``base`` returns during ``run``."""
    seen: dict[str, set[torch.dtype]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: Any, args: Any, out: Any) -> None:
            seen.setdefault(name, set()).update(floats(out))

        return module.register_forward_hook(hook)

    hooks = [watch(name, module) for name, module in base.named_modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    known: dict[str, Any] = {}

    def make(case: str) -> Any:
        if case not in known:
            folder = tmp_path_factory.mktemp("precision") / "it"
            known[case] = peft_saves(tiny_llama(), folder, **CASES[case])
        return known[case]

    return make


@pytest.mark.parametrize(
    ("kept", "attention"), [("none", "eager"), ("norms", "sdpa"), ("nearly all", "sdpa")]
)
@pytest.mark.parametrize("of_base", [F32, F16, BF16])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_dtypes_at_module_boundaries(
    case: str, of_base: torch.dtype, kept: str, attention: str, made: Callable[[str], Any]
) -> None:
    saved = made(case)
    base = tiny_llama(attn_implementation=attention).to(of_base)
    plain = boundaries(base, lambda: logits(base))
    if KEPT[kept]:
        keep_float32(base, KEPT[kept])
    alone, own = boundaries(base, lambda: logits(base)), logits(base)
    if kept == "norms" or of_base is F32:
        assert alone == plain
    for of_adapter in (None, F32, F16, BF16):
        model = adapted(base, saved, dtype=of_adapter)
        seen = boundaries(base, lambda: logits(model))  # noqa: B023 - runs now
        assert {n: d for n, d in alone.items() if n in seen} == seen
        answer = logits(model)
        assert answer.dtype is of_base
        rounded = coarsest(of_base, of_adapter)
        assert close(answer, saved.answer, NEAR[rounded], computed_in=rounded)
        if case not in ("prompt", "prefix"):
            rows = logits(model, adapter_names=["it", "__base__"])
            assert rows.dtype is of_base
            assert close(rows[0], saved.answer[0], NEAR[rounded], computed_in=rounded)
            assert close(rows[1], own[1], NEAR[of_base])
        model.detach()
    assert torch.equal(logits(base), own)


@pytest.mark.parametrize("of_base", [F16, BF16])
@pytest.mark.parametrize("case", ["lora", "dora", "saved modules", "ln tuning"])
def test_generate_keeps_the_bases_dtypes_at_every_step(
    case: str, of_base: torch.dtype, made: Callable[[str], Any]
) -> None:
    base = tiny_llama().to(of_base)
    keep_float32(base, ["*norm*"])
    how = {"max_new_tokens": 5, "do_sample": False}
    alone = boundaries(base, lambda: base.generate(ids(), **how))
    for of_adapter in (None, F32):
        model = adapted(base, made(case), dtype=of_adapter)
        for more in ({}, {"adapter_names": ["it", "__base__"]}, {"num_beams": 2}):
            seen = boundaries(base, lambda: model.generate(ids(), **how, **more))  # noqa: B023
            assert {n: d for n, d in alone.items() if n in seen} == seen
        model.detach()


@pytest.mark.parametrize("of_base", [F16, BF16])
@pytest.mark.parametrize(
    ("make", "config", "pattern"),
    [
        (tiny_bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, "*LayerNorm"),
        (tiny_t5, {"target_modules": ["q", "v"]}, "*layer_norm"),
        (tiny_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}, "*ln_*"),
    ],
)
def test_heads_encoders_and_decoders(
    make: Any, config: dict[str, Any], pattern: str, of_base: torch.dtype, tmp_path: Path
) -> None:
    base = make()
    saved = peft_saves(base, tmp_path / "it", **config)
    assert "modules_to_save" in saved.config or make is not tiny_bert
    base.to(of_base)
    plain = boundaries(base, lambda: logits(base))
    keep_float32(base, [pattern])
    assert boundaries(base, lambda: logits(base)) == plain
    for of_adapter in (None, F32, of_base):
        model = adapted(base, saved, dtype=of_adapter)
        seen = boundaries(base, lambda: logits(model, inputs_of(base)))  # noqa: B023
        assert {n: d for n, d in plain.items() if n in seen} == seen
        answer = logits(model, inputs_of(base))
        assert answer.dtype is of_base
        assert close(answer, saved.answer, NEAR[of_base])
        model.detach()


@pytest.mark.parametrize("of_base", [F32, F16, BF16])
@pytest.mark.parametrize("of_adapter", [None, F32])
@pytest.mark.parametrize("kept", KEPT)
def test_a_merge_equals_the_adapter_in_the_bases_dtypes(
    kept: str, of_adapter: torch.dtype | None, of_base: torch.dtype, made: Callable[[str], Any]
) -> None:
    saved = made("lora")
    base = tiny_llama().to(of_base)
    if KEPT[kept]:
        keep_float32(base, KEPT[kept])
    alone, own = boundaries(base, lambda: logits(base)), logits(base)
    before = copy.deepcopy(base.state_dict())
    model = adapted(base, saved, dtype=of_adapter)
    model.merge_adapter()
    assert {n: p.dtype for n, p in base.state_dict().items()} == {
        n: p.dtype for n, p in before.items()
    }
    assert boundaries(base, lambda: logits(model)) == alone
    assert close(logits(model), saved.answer, NEAR[of_base])
    model.unmerge_adapter()
    assert all(torch.equal(p, before[n]) for n, p in base.state_dict().items())
    assert torch.equal(logits(base), own)


@pytest.mark.parametrize("inside", [F16, BF16])
@pytest.mark.parametrize("case", ["lora", "dora", "saved modules", "ia3", "loha", "oft", "vera"])
def test_an_adapter_under_autocast_equals_pefts(
    case: str, inside: torch.dtype, made: Callable[[str], Any]
) -> None:
    """A float32 base and adapter, under ``torch.autocast``: near PEFT's answer there, in the
    dtypes that the base has there alone."""
    saved = made(case)
    base = tiny_llama()
    oracle = peft_loads(base, saved.folder)
    model = adapted(base, saved)
    with torch.autocast("cpu", inside):
        alone = boundaries(base, lambda: logits(base))
        assert any(inside in dtypes for dtypes in alone.values())
        seen = boundaries(base, lambda: logits(model))
        assert {n: d for n, d in alone.items() if n in seen} == seen
        theirs, mine = logits(oracle, inputs_of(base)), logits(model)
    assert close(mine, theirs, 4)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (tiny_bert, "bert"),
        (tiny_bert, "bert.encoder"),
        (tiny_llama, "model"),
        (tiny_llama, "model.layers.0"),
        (tiny_t5, "encoder"),
        (tiny_gpt2, "transformer"),
    ],
)
def test_parts_that_return_several_tensors_can_be_widened(make: Any, pattern: str) -> None:
    """transformers' output objects are cast back like tensors."""
    base = make().to(BF16)
    plain, before = boundaries(base, lambda: logits(base)), logits(base)
    keep_float32(base, [pattern])
    seen = boundaries(base, lambda: logits(base))
    outside = {name for name in seen if not name.startswith(f"{pattern}.")}
    assert {n: plain[n] for n in outside} == {n: seen[n] for n in outside}
    assert close(logits(base), before, 16)


def test_mixed_batch_rows_of_different_precision_match_single_runs(tmp_path: Path) -> None:
    base = tiny_llama().to(BF16)
    keep_float32(base, ["*norm*"])
    one = peft_saves(tiny_llama(), tmp_path / "one", target_modules="all-linear")
    two = peft_saves(
        tiny_llama(), tmp_path / "two", seed=2, r=2, target_modules=["q_proj"], use_dora=True
    )
    model = adapted(base, one, "one", dtype=F32)
    attach(model, two, "two", dtype=F16)
    mixed = logits(model, adapter_names=["one", "two"])
    assert mixed.dtype is BF16
    for row, name in enumerate(("one", "two")):
        alone = logits(model, adapter=name)[row]
        assert close(mixed[row], alone, 8)


@pytest.mark.parametrize("of_base", [F32, F16, BF16])
@pytest.mark.parametrize("of_adapter", [None, F32, BF16])
def test_a_compiled_base_returns_its_own_dtype(
    of_adapter: torch.dtype | None, of_base: torch.dtype, made: Callable[[str], Any]
) -> None:
    torch._dynamo.reset()
    base = tiny_llama().to(of_base)
    keep_float32(base, ["*norm*"])
    model = adapted(base, made("lora"), dtype=of_adapter)
    eager = logits(model)
    model.compile(max_rank=8, backend="eager")
    answer = logits(model)
    assert answer.dtype is of_base
    assert close(answer, eager, NEAR[of_base])
