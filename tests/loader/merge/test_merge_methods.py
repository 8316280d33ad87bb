"""Every native method in the base's weights: the live answer, PEFT's, and every bit back."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.merge import fold as folding
from adapterdock.loader.methods import dora
from adapterdock.loader.methods.table import METHODS
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, RoutingError
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
)
from support.merge_cases import CASES, EXPERTS, LORA, ROWS, STEPS, Case, saved_for, tied_llama
from support.moes import tiny_mixtral
from support.near import close
from support.peft_adapters import (
    adapted,
    attach,
    inputs_of,
    logits,
    one_layer,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_conv,
    tiny_llama,
    tiny_t5,
    traces,
)
from torch import nn


def codes(caught: pytest.ExceptionInfo[AdapterdockError]) -> list[str]:
    return [finding.code for finding in caught.value.findings]


@pytest.mark.parametrize("name", CASES)
def test_merged_answers_are_the_live_ones_at_any_weight_and_pefts(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    base = case.make()
    saved = saved_for(case, base, tmp_path / "it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged_by_peft = logits(peft_loads(base, saved.folder).merge_and_unload(), inputs_of(base))
    assert close(merged_by_peft, saved.answer) is case.peft
    model = adapted(base, saved)
    before = traces(base)
    for weight in (1.0,) if case.whole else (1.0, 0.5, -1.5):
        live = logits(model, adapter={"it": weight})
        model.merge_adapter({"it": weight}, safe_merge=True)
        assert model.merged_adapters == ["it"]
        assert close(logits(base), live), weight
        model.unmerge_adapter()
        assert same_traces(traces(base), before)
    model.merge_adapter()
    assert close(logits(model), saved.answer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_unmerging_restores_every_bit_in_any_dtype(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    case = CASES[name]
    base = case.make()
    saved = saved_for(case, base, tmp_path / "it")
    model = adapted(base.to(dtype), saved, dtype=torch.float32)
    before = traces(base)
    model.merge_adapter(safe_merge=True)
    changed = [n for n, v in base.state_dict().items() if not torch.equal(v, before["state"][n])]
    assert changed
    assert all(v.dtype is before["state"][n].dtype for n, v in base.state_dict().items())
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


@pytest.mark.parametrize("name", CASES)
def test_large_weights_are_merged_in_pieces_with_the_same_result(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_PIECE", 40)  # two or three rows
    monkeypatch.setattr(dora, "_PIECE", 40)
    case = CASES[name]
    base = case.make()
    saved = saved_for(case, base, tmp_path / "it")
    adapted(base, saved).merge_and_unload()
    assert close(logits(base), saved.answer)


def test_every_native_method_has_a_case() -> None:
    """Or stands in the docs as one that cannot be merged."""
    assert all(method.delta_weight is not None for method in METHODS.values())


# -- together ----------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"kind": LoraConfig, **LORA},
    "dora": {"kind": LoraConfig, **LORA, "use_dora": True},
    "ia3": {"kind": IA3Config, "feedforward_modules": []},
    "ia3-inputs": {"kind": IA3Config, "feedforward_modules": ["layer"]},
    "loha": {"kind": LoHaConfig, "r": 3},
    "lokr": {"kind": LoKrConfig, "r": 1},
    "oft": {"kind": OFTConfig, "oft_block_size": 4},
    "adalora": {"kind": AdaLoraConfig, **STEPS},
    "vera": {"kind": VeraConfig, "r": 4},
}


def test_methods_merged_together_are_the_sum_of_their_deltas_from_the_base(tmp_path: Path) -> None:
    """Not one after the other, as PEFT merges them: each would see what the others made."""
    base = one_layer("linear")
    alone = logits(base)
    model = AdaptedModel(base)
    expected = alone
    weights = {name: 0.5 + 0.25 * n * (-1) ** n for n, name in enumerate(KINDS)}
    for seed, (name, config) in enumerate(KINDS.items()):
        saved = peft_saves(base, tmp_path / name, seed=seed, target_modules=["layer"], **config)
        attach(model, saved, name)
        expected = expected + weights[name] * (saved.answer - alone)
    assert close(logits(model, adapter=weights), expected)
    before = traces(base)
    for order in (list(weights), list(reversed(weights))):
        model.merge_adapter({name: weights[name] for name in order})
        assert close(logits(base), expected)
        model.unmerge_adapter()
    model.merge_adapter({n: w for n, w in weights.items() if n not in ("vera", "loha")})
    for name in ("vera", "loha"):  # one after the other is the same, too
        model.merge_adapter({name: weights[name]})
    assert close(logits(base), expected)
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


def test_experts_of_two_adapters_add_up(tmp_path: Path) -> None:
    base = tiny_mixtral()
    one = peft_saves(base, tmp_path / "one", target_parameters=EXPERTS, target_modules=["q_proj"])
    two = peft_saves(
        base, tmp_path / "two", seed=2, r=2, target_parameters=EXPERTS[1:], target_modules=[]
    )
    model = adapted(base, one, "one")
    attach(model, two, "two")
    live = logits(model, adapter={"one": 0.5, "two": -1.0})
    model.merge_adapter({"one": 0.5})
    model.set_adapter({"two": -1.0})  # made of the input alone, so it may act beside it
    assert close(logits(model), live)
    model.merge_adapter({"two": -1.0})
    assert close(logits(base), live)


def test_tokens_of_tied_modules_keep_them_tied(tmp_path: Path) -> None:
    """Even where the architecture can have it no other way."""
    for make in (tied_llama, tiny_t5):
        base = make()
        kept = base.get_output_embeddings().weight
        saved = peft_saves(
            base, tmp_path / make.__name__, kind=TrainableTokensConfig, token_indices=ROWS
        )
        model = adapted(base, saved)
        before = traces(base)
        merged = base.get_input_embeddings().weight
        model.merge_adapter()
        assert base.get_output_embeddings().weight is kept is merged
        assert base.config.tie_word_embeddings is True
        base.save_pretrained(tmp_path / "merged" / make.__name__)
        again = type(base).from_pretrained(tmp_path / "merged" / make.__name__).eval()
        assert close(logits(again), saved.answer)
        model.unmerge_adapter()
        assert same_traces(traces(base), before)


def test_ties_survive_a_failed_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight is exchanged once, not once under each name."""
    base = tied_llama()
    rows = peft_saves(base, tmp_path / "it", kind=TrainableTokensConfig, token_indices=ROWS)
    lora = peft_saves(base, tmp_path / "lora", target_modules=["q_proj"])
    model = adapted(base, rows)
    attach(model, lora, "lora")
    model.merge_adapter("it")
    merged = traces(base)

    def failing(*_: Any) -> Any:
        raise MemoryError("no more")

    row = dataclasses.replace(METHODS["LORA"], delta_weight=failing)
    monkeypatch.setitem(METHODS, "LORA", row)  # type: ignore[call-overload]
    with pytest.raises(AttachError):
        model.merge_adapter("lora")
    assert same_traces(traces(base), merged) and close(logits(base), rows.answer)


# -- refused -----------------------------------------------------------------------------------


def _max_norm() -> Any:
    base = tiny_llama()
    base.model.embed_tokens.max_norm = 1.0
    return base


def _circular() -> Any:
    net = tiny_conv()
    net.line = nn.Conv1d(8, 6, 3, padding=1, padding_mode="circular")
    return net


REFUSED: dict[str, Case] = {
    "rotated patches": Case(
        tiny_conv, OFTConfig, {"target_modules": ["first"], "oft_block_size": 9}
    ),
    "rotated groups": Case(
        lambda: _grouped_pixels(), OFTConfig, {"target_modules": ["grouped"], "oft_block_size": 4}
    ),
    "rotated rows of a largest norm": Case(
        _max_norm, OFTConfig, {"target_modules": ["embed_tokens"], "oft_block_size": 4}
    ),
    "tokens of a largest norm": Case(_max_norm, TrainableTokensConfig, {"token_indices": ROWS}),
    "loha beyond the edge": Case(_circular, LoHaConfig, {"target_modules": ["line"], "r": 2}),
    "dora of groups": Case(
        tiny_conv, LoraConfig, {**LORA, "target_modules": ["grouped"], "use_dora": True}
    ),
    "virtual tokens": Case(
        tiny_llama, PrefixTuningConfig, {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    ),
}


def _grouped_pixels() -> Any:
    net = tiny_conv()
    net.grouped = nn.Conv2d(8, 8, 1, groups=2)
    return net


@pytest.mark.parametrize("name", REFUSED)
def test_a_delta_that_does_not_change_the_weight_is_refused(name: str, tmp_path: Path) -> None:
    case = REFUSED[name]
    base = case.make()
    model = adapted(base, saved_for(case, base, tmp_path / "it"))
    live, before = logits(model), traces(base)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert set(codes(caught)) == {"AD757"}
    assert same_traces(traces(base), before) and torch.equal(logits(model), live)


def test_a_rescaled_module_that_another_adapter_replaces_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    whole = peft_saves(
        base, tmp_path / "whole", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    saved = peft_saves(base, tmp_path / "dora", seed=3, target_modules=["lm_head"], use_dora=True)
    model = adapted(base, whole, "whole")
    attach(model, saved, "dora")
    with pytest.raises(AttachError) as caught:
        model.merge_adapter(["whole", "dora"])
    assert codes(caught) == ["AD757"] and "'whole' replaces the module" in str(caught.value)


def test_a_rescaled_module_of_which_a_parameter_changes_is_refused(tmp_path: Path) -> None:
    """Live, the rescaling sees the changed parameter: no sum of two deltas from the base."""
    base = tiny_llama()
    parameter = peft_saves(
        base, tmp_path / "parameter", target_parameters=["down_proj.weight"], target_modules=[]
    )
    rescaled = peft_saves(
        base,
        tmp_path / "rescaled",
        kind=IA3Config,
        target_modules=["down_proj"],
        feedforward_modules=[],
    )
    for first, second in ((parameter, rescaled), (rescaled, parameter)):
        model = adapted(base, first, "first")
        attach(model, second, "second")
        with pytest.raises(AttachError) as caught:
            model.merge_adapter(["first", "second"])
        assert set(codes(caught)) == {"AD757"}
        model.detach()


def test_two_adapters_with_the_same_norm_are_not_merged_one_after_the_other(
    tmp_path: Path,
) -> None:
    base = tiny_llama()
    one, two = (
        peft_saves(
            base, tmp_path / name, seed=n, kind=LNTuningConfig, target_modules=["input_layernorm"]
        )
        for n, name in enumerate(("one", "two"))
    )
    model = adapted(base, one, "one")
    attach(model, two, "two")
    model.merge_adapter("one")
    merged = traces(base)
    with pytest.raises((RoutingError, AttachError)) as caught:
        model.merge_adapter("two")
    assert codes(caught) and same_traces(traces(base), merged)
    assert close(logits(base), one.answer)
