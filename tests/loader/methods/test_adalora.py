"""AdaLoRA compared with PEFT."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings import loader as codes
from adapterdock.manifests.findings.errors import AttachError
from peft import AdaLoraConfig, get_peft_model
from support.method_oracle import (
    check_answers,
    check_half_precision,
    check_quantised_and_offloaded,
    check_sums,
    check_untrained_is_refused,
    fill,
)
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)

STEPS = {"total_step": 10}
LLAMA = {"target_modules": ["q_proj", "down_proj"], "init_r": 4, **STEPS}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear", "lora_alpha": 9, **STEPS}),
    "no alpha": (tiny_llama, {**LLAMA, "lora_alpha": 0}),
    "what AdaLoRA does not use": (
        tiny_llama,
        {
            **LLAMA,
            "use_rslora": True,
            "alpha_pattern": {"q_proj": 99},
            "init_lora_weights": "pissa",
        },
    ),
    "conv1d": (
        tiny_gpt2,
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, **STEPS},
    ),
    "conv": (tiny_conv, {"target_modules": ["first", "head"], "init_r": 3, **STEPS}),
    "seq2seq": (tiny_t5, {"target_modules": ["q", "wo"], **STEPS}),
    "bias": (tiny_bert, {"target_modules": ["query"], "bias": "lora_only", **STEPS}),
    "saved head": (tiny_llama, {**LLAMA, "modules_to_save": ["lm_head"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    check_answers(make, tmp_path / "it", AdaLoraConfig, **config)


def allocate(ranks: list[int]) -> Callable[[Any], None]:
    """Like the training: keeps ``ranks`` directions at each module."""

    def change(model: Any) -> None:
        pattern: dict[str, list[bool]] = {}
        names = [n for n, _ in model.base_model.model.named_parameters() if "lora_E" in n]
        for name, rank in zip(names, ranks, strict=True):
            kept = [n % 4 < rank for n in range(4)]
            pattern[name] = kept
            e = model.base_model.model.get_parameter(name)
            e.data[~torch.tensor(kept)] = 0
        model.peft_config["default"].rank_pattern = pattern

    return change


@pytest.mark.parametrize("alpha", [8, 0])
@pytest.mark.parametrize("ranks", [[1, 2, 3, 4], [4, 1, 1, 2], [2, 0, 0, 3]])
def test_modules_keep_the_ranks_from_training(ranks: list[int], alpha: int, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=AdaLoraConfig,
        change=allocate(ranks),
        **LLAMA,
        lora_alpha=alpha,
    )
    assert set(saved.config["rank_pattern"]) == {
        f"model.layers.{n}.{m}.lora_E"
        for n in (0, 1)
        for m in ("self_attn.q_proj", "mlp.down_proj")
    }
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert [site.rank for site in saved.plan(base).sites] == [
        saved.tensors().header.tensors[site.tensors["A"]].shape[0]
        for site in saved.plan(base).sites
    ]


def test_adapter_trained_by_peft_matches_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    config = AdaLoraConfig(
        target_modules=["q_proj", "v_proj"], init_r=4, target_r=2, total_step=8, tinit=1, tfinal=2
    )
    trained = get_peft_model(copy.deepcopy(base), config)
    optimiser = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=0.05)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    for step in range(8):
        trained(**batch).loss.backward()
        optimiser.step()
        trained.base_model.update_and_allocate(step)
        optimiser.zero_grad()
    trained.save_pretrained(str(tmp_path / "it"))
    saved = Saved(tmp_path / "it", logits(peft_loads(base, tmp_path / "it"), inputs_of(base)))
    assert len({site.rank for site in saved.plan(base).sites}) > 1
    assert differs(saved.answer, logits(base))
    assert close(logits(adapted(base, saved)), saved.answer)


@pytest.mark.parametrize("layer", ["linear", "conv1d", "conv"])
def test_sums_match_dense_arithmetic(layer: str, tmp_path: Path) -> None:
    check_sums(layer, tmp_path, AdaLoraConfig, fan_in_fan_out=layer == "conv1d", **STEPS)


def test_half_precision_base_matches_peft(tmp_path: Path) -> None:
    check_half_precision(tmp_path / "it", AdaLoraConfig, **LLAMA)


def test_quantised_and_offloaded_bases_match_peft(tmp_path: Path) -> None:
    check_quantised_and_offloaded(tmp_path / "it", AdaLoraConfig, **LLAMA)


@pytest.mark.parametrize("factor", ["lora_A", "lora_B", "lora_E"])
def test_adapter_with_a_zero_factor_is_refused(factor: str, tmp_path: Path) -> None:
    check_untrained_is_refused(
        tiny_llama, tmp_path / "it", AdaLoraConfig, fill(0.0, factor), trains=False, **LLAMA
    )


def test_trainable_adalora_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", kind=AdaLoraConfig, **LLAMA)
    before = traces(base)
    model = AdaptedModel(base)
    with pytest.raises(AttachError) as caught:
        attach(model, saved, trainable=True)
    assert [finding.code for finding in caught.value.findings] == [codes.METHOD_NOT_TRAINED.id]
    assert same_traces(traces(model.detach()), before)
