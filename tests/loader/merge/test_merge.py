"""Adapters folded into a live base's weights: the same answers, and every bit back."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter.adapter import Adapter
from adapterdock.loader.adapter.weights import SitePart
from adapterdock.loader.methods import table
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    PolicyError,
    RoutingError,
)
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.rules import check_active
from adapterdock.manifests.language.schema import Rules
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
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
from support.shelf import Shelf, manifest_of
from support.tiny_bases import fresh

OPTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear"}),
    "rslora": (tiny_llama, {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "lora_bias": (tiny_gpt2, {"target_modules": ["c_attn"], "lora_bias": True}),
    "conv1d": (tiny_gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head": (tiny_llama, {"target_modules": ["lm_head", "q_proj"]}),
    "seq2seq": (tiny_t5, {"target_modules": ["q", "v", "wo"]}),
    "conv": (tiny_conv, {"target_modules": ["first", "line", "deep", "head"]}),
    "bias_all": (tiny_bert, {"target_modules": ["query"], "bias": "all"}),
    "bias_lora_only": (tiny_bert, {"target_modules": ["query", "value"], "bias": "lora_only"}),
    "classifier": (tiny_bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "saved_norm": (tiny_conv, {"target_modules": ["first"], "modules_to_save": ["norm"]}),
    "saved_block": (
        tiny_llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["layers.1.mlp"]},
    ),
    "saved_embedding": (
        tiny_llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
}


def with_parts(adapter: Adapter, parts: tuple[SitePart, ...]) -> None:
    """Let the adapter say that it has these."""
    adapter.weights = dataclasses.replace(adapter.resident, parts=parts)


def codes(caught: pytest.ExceptionInfo[AdapterdockError]) -> list[str]:
    return [finding.code for finding in caught.value.findings]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Any, AdaptedModel, Saved, Saved]:
    """A base, and two adapters on it of different rank, of which ``one`` is active."""
    base = tiny_llama()
    one = peft_saves(base, tmp_path / "one", target_modules="all-linear")
    two = peft_saves(base, tmp_path / "two", seed=3, r=2, target_modules=["v_proj"])
    model = AdaptedModel(base)
    attach(model, two, "two")
    attach(model, one, "one")
    return base, model, one, two


# -- the answer, and the way back ------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_merged_answers_are_pefts_and_unmerging_leaves_no_trace(
    option: str, tmp_path: Path
) -> None:
    make, config = OPTIONS[option]
    base = make()
    saved = peft_saves(base, tmp_path / "it", **config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = logits(peft_loads(base, saved.folder).merge_and_unload(), inputs_of(base))
    model = adapted(base, saved)
    before = traces(base)

    model.merge_adapter(safe_merge=True)
    assert model.merged_adapters == ["it"] and model.active_adapters() == []
    assert close(logits(model), saved.answer) and close(logits(model), oracle)
    assert torch.equal(logits(base), logits(model)), "the base has it in its weights"

    model.unmerge_adapter()
    assert same_traces(traces(base), before)
    assert model.merged_adapters == [] and model.active_adapters() == ["it"]
    assert close(logits(model), saved.answer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_restores_every_bit_in_any_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules="all-linear")
    model = adapted(base.to(dtype), saved)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model.merge_adapter()
    changed = [n for n, v in base.state_dict().items() if not torch.equal(v, before[n])]
    assert len(changed) == 14
    assert all(value.dtype is dtype for value in base.state_dict().values())
    model.unmerge_adapter()
    assert all(torch.equal(v, before[n]) for n, v in base.state_dict().items())


def test_half_precision_is_merged_in_float32_and_rounded_once(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    base = base.to(torch.bfloat16)
    model = adapted(base, saved, dtype=torch.float32)
    linear = base.model.layers[0].self_attn.q_proj
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.it.weight"
    a, b = (model.state_dict()[name.format(factor)] for factor in "AB")
    expected = (linear.weight.float() + 2.0 * (b @ a)).to(torch.bfloat16)
    model.merge_adapter()
    assert torch.equal(linear.weight, expected)


def test_a_large_weight_is_merged_in_pieces_with_the_same_result(
    pair: tuple[Any, AdaptedModel, Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.loader.merge import fold as folding

    base, model, one, _ = pair
    monkeypatch.setattr(folding, "_PIECE", 40)  # two or three rows
    model.merge_adapter()
    assert close(logits(base), one.answer)


def test_a_weighted_sum_is_merged_as_it_answers_live(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    base, model, _, _ = pair
    mix = {"one": 0.5, "two": -1.5}
    live = logits(model, adapter=mix)
    model.define_composition("mix", mix)
    model.merge_adapter("mix")
    assert model.merged_adapters == ["one", "two"]
    assert close(logits(model), live)
    model.unmerge_adapter()
    model.merge_adapter(mix)
    assert close(logits(base), live)


def test_a_second_merge_adds_to_the_first_without_rounding_twice(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    base, model, _, _ = pair
    before = traces(base)
    model.merge_adapter(["one", "two"])
    together = {n: v.clone() for n, v in base.state_dict().items()}
    model.unmerge_adapter()
    model.merge_adapter("one")
    model.merge_adapter("two")
    assert all(torch.equal(v, together[n]) for n, v in base.state_dict().items())
    assert model.merged_adapters == ["one", "two"]
    model.unmerge_adapter()
    assert same_traces(traces(base), before)
    assert model.active_adapters() == ["one"]


def test_training_goes_on_from_the_unmerged_adapter_with_its_new_values(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    model = adapted(base, saved, trainable=True)
    model.merge_adapter()
    model.unmerge_adapter()
    for value in model.state_dict(keep_vars=True).values():
        value.data.mul_(0.5)
    live = logits(model)
    model.merge_adapter()
    assert close(logits(model), live) and not close(live, saved.answer)


def test_a_base_that_was_converted_while_merged_gets_its_own_values_in_that_dtype(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    base, model, _, _ = pair
    expected = {n: v.to(torch.bfloat16) for n, v in base.state_dict().items()}
    model.merge_adapter()
    model.to(torch.bfloat16)
    model.unmerge_adapter()
    assert all(torch.equal(v, expected[n]) for n, v in base.state_dict().items())


# -- never counted twice -----------------------------------------------------------------------


def test_a_merged_adapter_cannot_be_selected_in_any_way(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, one, _ = pair
    model.define_composition("mix", {"one": 1.0, "two": 1.0})
    early = model.using("one")
    model.merge_adapter("one")
    for choose in (
        lambda: model.set_adapter("one"),
        lambda: model.set_adapter({"two": 1.0, "one": 0.5}),
        lambda: model.using("mix"),
        lambda: logits(model, adapter="one"),
        lambda: model.generate(ids(), adapter="one", max_new_tokens=1),
        lambda: model.merge_adapter("one"),
    ):
        with pytest.raises(RoutingError) as caught:
            choose()
        assert codes(caught) == ["AD756"]
    with early, pytest.raises(RoutingError) as caught:
        logits(model)
    assert codes(caught) == ["AD756"]
    assert close(logits(model), one.answer)


def test_the_base_model_cannot_run_alone_while_adapters_are_merged(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    early = model.using(None)
    model.merge_adapter("one")
    for ask in (
        lambda: model.set_adapter(None),
        lambda: model.disable_adapter(),
        lambda: model.disable_adapters(),
        lambda: logits(model, adapter="__base__"),
    ):
        with pytest.raises(RoutingError) as caught:
            ask()
        assert codes(caught) == ["AD756"]
    with early, pytest.raises(RoutingError):
        logits(model)


def test_another_adapter_can_be_active_with_a_merged_one(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    both = logits(model, adapter=["one", "two"])
    model.set_adapter(["one", "two"])
    model.merge_adapter("one")
    assert model.active_adapters() == ["two"]
    assert close(logits(model), both)
    with model.using("two"):
        assert close(logits(model), both)
    model.unmerge_adapter()
    assert model.active_adapters() == ["one", "two"]


def test_an_adapter_that_changes_the_output_is_refused_with_a_merged_one(
    pair: tuple[Any, AdaptedModel, Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, _, _ = pair
    for adapter in model._host.adapters.by_name.values():
        with_parts(adapter, tuple(p._replace(of_input=False) for p in adapter.resident.parts))
    model.merge_adapter("one")
    with pytest.raises(RoutingError) as caught:
        model.set_adapter("two")
    assert codes(caught) == ["AD756"] and "changes the output of" in str(caught.value)


def test_a_choice_made_while_merged_stays_after_unmerging(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    model.merge_adapter()
    model.set_adapter("two")
    model.unmerge_adapter()
    assert model.active_adapters() == ["two"]


def test_nothing_is_attached_or_deleted_while_merged(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, two = pair
    model.merge_adapter("one")
    with pytest.raises(RoutingError) as caught:
        attach(model, two, "three")
    assert codes(caught) == ["AD756"] and "three" not in model.adapters
    with pytest.raises(RoutingError) as caught:
        model.delete_adapter("one")
    assert codes(caught) == ["AD756"]
    model.delete_adapter("two")


def test_an_adapter_deleted_while_merged_is_not_active_again(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, one, _ = pair
    model.set_adapter(["one", "two"])
    model.merge_adapter("one")
    model.delete_adapter("two")
    model.unmerge_adapter()
    assert model.active_adapters() == ["one"] and close(logits(model), one.answer)


def test_weights_that_were_merged_in_inference_mode_can_be_trained(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    base, model, _, _ = pair
    with torch.inference_mode():
        model.merge_and_unload()
    base(input_ids=ids(), labels=ids()).loss.backward()
    assert all(parameter.grad is not None for parameter in base.parameters())


def test_factors_with_more_than_a_and_b_are_not_merged_as_if_they_were_plain(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    adapter = model._host.adapters.by_name["two"]
    part = adapter.resident.parts[0]
    site = part.site._replace(tensors={**part.site.tensors, "magnitude_vector": "m"})
    with_parts(adapter, (part._replace(site=site), *adapter.resident.parts[1:]))
    with pytest.raises(AttachError) as caught:
        model.merge_adapter("two")
    assert codes(caught) == ["AD757"]


def test_rules_count_merged_adapters(pair: tuple[Any, AdaptedModel, Saved, Saved]) -> None:
    from adapterdock.manifests.findings.rules import TOO_MANY_ACTIVE

    _, model, _, _ = pair
    model.rules = lambda active: [TOO_MANY_ACTIVE.finding("too many")] if len(active) > 1 else []
    with pytest.raises(PolicyError):
        model.merge_adapter(["one", "two"])
    model.merge_adapter("one")
    for choose in (lambda: model.set_adapter("two"), lambda: model.merge_adapter("two")):
        with pytest.raises(PolicyError):
            choose()
    assert model.merged_adapters == ["one"]


def test_detaching_unmerges_first(pair: tuple[Any, AdaptedModel, Saved, Saved]) -> None:
    base, model, _, _ = pair
    alone = {n: v.clone() for n, v in base.state_dict().items()}
    model.merge_adapter()
    assert model.detach() is base
    assert all(torch.equal(v, alone[n]) for n, v in base.state_dict().items())


def test_merging_nothing_is_an_error_and_unmerging_nothing_is_not(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    model.set_adapter(None)
    for call in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(RoutingError) as caught:
            call()
        assert codes(caught) == ["AD761"]
    model.unmerge_adapter()


# -- all or nothing ----------------------------------------------------------------------------


def test_safe_refuses_infinity_before_anything_changes(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules="all-linear")
    model = adapted(base.to(torch.float16), saved)
    before = traces(base)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter({"it": 1e6}, safe_merge=True)
    assert set(codes(caught)) == {"AD759"} and len(codes(caught)) == 14
    assert same_traces(traces(base), before) and model.merged_adapters == []
    model.merge_adapter({"it": 1e6})
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(
    pair: tuple[Any, AdaptedModel, Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model, one, _ = pair
    before = traces(base)
    real, count = table.METHODS["LORA"].delta_weight, 0

    def failing(*arguments: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count > 5:
            raise MemoryError("no more")
        assert real is not None
        return real(*arguments)

    monkeypatch.setitem(table.METHODS, "LORA", _with(table.METHODS["LORA"], delta_weight=failing))
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert codes(caught) == ["AD765"]
    assert same_traces(traces(base), before) and close(logits(model), one.answer)
    count = -100
    model.merge_adapter("two")
    merged = traces(base)
    count = 3
    with pytest.raises(AttachError):
        model.merge_adapter("one")
    assert same_traces(traces(base), merged) and model.merged_adapters == ["two"]


def test_a_failure_while_weights_are_exchanged_restores_all_of_them(
    pair: tuple[Any, AdaptedModel, Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.loader.merge import merge as merging

    base, model, one, _ = pair
    before = traces(base)
    of_base, calls = merging._tensors, 0

    class Breaking(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            if "layers.1" in name:
                raise RuntimeError("broken")
            return super().__getitem__(name)

    def breaking(model: Any) -> Any:
        nonlocal calls
        calls += 1
        return Breaking(of_base(model)) if calls == 2 else of_base(model)

    monkeypatch.setattr(merging, "_tensors", breaking)
    with pytest.raises(RuntimeError, match="broken"):
        model.merge_adapter()
    assert same_traces(traces(base), before) and model.merged_adapters == []
    assert close(logits(model), one.answer)


def _with(row: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(row, **changes)


def test_a_method_without_a_delta_of_weights_is_refused(
    pair: tuple[Any, AdaptedModel, Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model, _, _ = pair
    before = traces(base)
    monkeypatch.setitem(table.METHODS, "LORA", _with(table.METHODS["LORA"], delta_weight=None))
    with pytest.raises(AttachError) as caught:
        model.merge_adapter(["one", "two"])
    assert codes(caught) == ["AD757", "AD757"]
    assert same_traces(traces(base), before)


def test_parameters_that_belong_to_no_part_are_refused(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    adapter = model._host.adapters.by_name["two"]
    with_parts(adapter, adapter.resident.parts[:-1])
    with pytest.raises(AttachError) as caught:
        model.merge_adapter("two")
    assert codes(caught) == ["AD757"]


def _grouped() -> Any:
    return tiny_conv()


def _dilated() -> Any:
    net = tiny_conv()
    net.line = torch.nn.Conv1d(8, 6, 3, dilation=2, padding="same")
    return net


def _circular() -> Any:
    net = tiny_conv()
    net.line = torch.nn.Conv1d(8, 6, 3, padding=1, padding_mode="circular")
    return net


def _max_norm() -> Any:
    base = tiny_llama()
    base.model.embed_tokens.max_norm = 1.0
    return base


def _without_bias() -> Any:
    return tiny_llama()


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (_grouped, {"target_modules": ["grouped", "head"]}),
        (_dilated, {"target_modules": ["line"]}),
        (_circular, {"target_modules": ["line"]}),
        (_max_norm, {"target_modules": ["embed_tokens"]}),
        (_without_bias, {"target_modules": ["q_proj"], "lora_bias": True}),
    ],
)
def test_a_delta_that_does_not_change_a_weight_is_refused(
    make: Callable[[], Any], config: dict[str, Any], tmp_path: Path
) -> None:
    base = make()
    model = adapted(base, peft_saves(base, tmp_path / "it", **config))
    before = traces(base)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert set(codes(caught)) == {"AD757"}
    assert same_traces(traces(base), before)


def test_offloaded_weights_are_refused(tmp_path: Path) -> None:
    from accelerate import cpu_offload

    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    cpu_offload(base, execution_device=torch.device("cpu"))
    model = adapted(base, saved)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert set(codes(caught)) == {"AD758"} and "offloaded" in str(caught.value)
    assert close(logits(model), saved.answer)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    quantize_(base, Int8WeightOnlyConfig())
    model = adapted(base, saved)
    live = logits(model)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert set(codes(caught)) == {"AD758"}
    assert torch.equal(logits(model), live)


def test_a_grown_vocabulary_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    grown = tiny_llama()
    grown.resize_token_embeddings(70)
    saved = peft_saves(grown, tmp_path / "it", target_modules=["q_proj", "embed_tokens"])
    model = adapted(base, saved)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert set(codes(caught)) == {"AD763"}


def test_weights_are_not_exchanged_under_a_running_call(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    base, model, one, _ = pair
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        inside.set()
        assert leave.wait(20)

    handle = base.model.norm.register_forward_hook(wait)
    model.set_adapter(None)  # a call of the base alone counts too
    thread = threading.Thread(target=lambda: logits(model))
    thread.start()
    assert inside.wait(20)
    try:
        for change in (lambda: model.merge_adapter("one"), lambda: model.merge_and_unload("one")):
            with pytest.raises(RoutingError) as caught:
                change()
            assert codes(caught) == ["AD768"]
    finally:
        leave.set()
        thread.join()
        handle.remove()
    model.merge_adapter("one")
    assert close(logits(model), one.answer)


# -- shared weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_tied_head_gets_a_weight_of_its_own_and_is_tied_again(
    targets: list[str], tmp_path: Path
) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    saved = peft_saves(
        tiny_llama(tie_word_embeddings=True),
        tmp_path / "it",
        target_modules=targets,
        save={"save_embedding_layers": False},
    )
    model = adapted(base, saved)
    live, before = logits(model), traces(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pefts = logits(peft_loads(base, saved.folder).merge_and_unload())
    assert not close(pefts, saved.answer), "PEFT's merge is not PEFT's live answer"
    assert close(live, saved.answer)
    model.merge_adapter()
    assert close(logits(model), live)
    assert base.lm_head.weight is not base.model.embed_tokens.weight
    assert base.config.tie_word_embeddings is False
    base.save_pretrained(tmp_path / "merged")
    again = type(base).from_pretrained(tmp_path / "merged").eval()
    assert close(logits(again), live)
    model.unmerge_adapter()
    assert base.lm_head.weight is base.model.embed_tokens.weight
    assert base.config.tie_word_embeddings is True
    assert same_traces(traces(base), before)


def test_all_that_the_config_ties_is_untied_with_the_head(tmp_path: Path) -> None:
    """BERT's ``tie_word_embeddings`` ties the decoder's bias as well: a save would leave it out
    and a load make it random."""
    base = fresh("bert masked")
    saved = peft_saves(
        fresh("bert masked"),
        tmp_path / "it",
        target_modules=["word_embeddings"],
        save={"save_embedding_layers": False},
    )
    model = adapted(base, saved)
    before = traces(base)
    model.merge_adapter()
    assert close(logits(model), saved.answer)
    base.save_pretrained(tmp_path / "merged")
    again = type(base).from_pretrained(tmp_path / "merged").eval()
    assert close(logits(again), saved.answer)
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


def test_a_saved_embedding_that_the_head_shares_keeps_them_tied(tmp_path: Path) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    saved = peft_saves(
        tiny_llama(tie_word_embeddings=True),
        tmp_path / "it",
        target_modules=["q_proj"],
        save={"save_embedding_layers": True},
        change=lambda m: m.get_input_embeddings().weight.data.mul_(1.5),
    )
    model = adapted(base, saved)
    live = logits(model)
    assert close(live, saved.answer)
    model.merge_adapter()
    assert close(logits(model), live)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    assert base.config.tie_word_embeddings is True


def test_weights_that_the_architecture_always_ties_are_refused(tmp_path: Path) -> None:
    base = tiny_t5()
    saved = peft_saves(base, tmp_path / "it", target_modules=["lm_head", "q"])
    model = adapted(base, saved)
    before = traces(base)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter()
    assert codes(caught) == ["AD760"]
    assert same_traces(traces(base), before)


# -- for good ----------------------------------------------------------------------------------


def test_merge_and_unload_gives_the_plain_base_that_saves_and_exports(tmp_path: Path) -> None:
    base = tiny_llama()
    clean = traces(base)
    one = peft_saves(base, tmp_path / "one", target_modules="all-linear")
    two = peft_saves(base, tmp_path / "two", seed=3, r=2, target_modules=["v_proj"])
    model = AdaptedModel(base)
    attach(model, two, "two")
    attach(model, one, "one")
    merged = model.merge_and_unload(safe_merge=True)
    assert merged is base
    assert close(logits(merged), one.answer)
    left = traces(merged)
    for kept in ("state", "flags"):
        left.pop(kept)
        clean.pop(kept)
    assert left == clean
    with pytest.raises(RoutingError):
        model(ids())
    merged.save_pretrained(tmp_path / "plain")
    again = type(base).from_pretrained(tmp_path / "plain").eval()
    assert torch.equal(logits(again), logits(merged))
    program = torch.export.export(merged, (), {"input_ids": ids(), "use_cache": False})
    exported = program.module()(input_ids=ids(), use_cache=False)
    assert close(exported.logits.detach(), one.answer)


def test_merge_and_unload_takes_what_is_merged_and_what_is_active(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, _ = pair
    both = logits(model, adapter=["one", "two"])
    model.merge_adapter("one")
    model.set_adapter("two")
    assert close(logits(model.merge_and_unload()), both)


def test_the_base_may_be_adapted_again_after_it_was_merged(
    pair: tuple[Any, AdaptedModel, Saved, Saved],
) -> None:
    _, model, _, two = pair
    both = logits(model, adapter=["one", "two"])
    merged = model.merge_and_unload("one")
    assert close(logits(adapted(merged, two)), both)


# -- kept on disk ------------------------------------------------------------------------------


def test_reread_weights_are_restored_bit_for_bit(shelf: Shelf, tmp_path: Path) -> None:
    model = adapterdock.load(manifest_of(shelf, tmp_path, active="one"), dtype="bfloat16")
    base = model.base_model
    before = traces(base)
    model.merge_adapter(keep="reread")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(base.state_dict()[name], before["state"][name])
    model.merge_adapter("two", keep="reread")
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


def test_rereading_without_files_is_refused_before_anything_changes(
    pair: tuple[Any, AdaptedModel, Saved, Saved], shelf: Shelf, tmp_path: Path
) -> None:
    base, model, _, _ = pair
    before = traces(base)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter(keep="reread")
    assert codes(caught) == ["AD762"]
    with pytest.raises(RoutingError) as wrong:
        model.merge_adapter(keep="disk")  # type: ignore[arg-type]
    assert codes(wrong) == ["AD762"]
    assert same_traces(traces(base), before)
    loaded = adapterdock.load(manifest_of(shelf, tmp_path, active="one"))
    with torch.no_grad():
        loaded.base_model.model.layers[0].self_attn.q_proj.weight.add_(1)  # not the files' any more
    with pytest.raises(AttachError) as caught:
        loaded.merge_adapter(keep="reread")
    assert codes(caught) == ["AD762"]
    assert loaded.merged_adapters == []


def test_a_sign_of_zero_that_a_file_does_not_have_is_noticed_at_the_merge(
    shelf: Shelf, tmp_path: Path
) -> None:
    base = shutil.copytree(shelf.base, tmp_path / "base")
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors = load_file(base / "model.safetensors")
    tensors[name][0, 0] = 0.0
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    model = adapterdock.load(manifest_of(shelf, tmp_path, active="one", base={"model": base}))
    model.base_model.get_parameter(name).data[0, 0] = -0.0
    with pytest.raises(AttachError) as caught:
        model.merge_adapter(keep="reread")
    assert codes(caught) == ["AD762"] and model.merged_adapters == []


def test_changed_files_are_reported_and_the_adapter_stays_merged(
    shelf: Shelf, tmp_path: Path
) -> None:
    base = shutil.copytree(shelf.base, tmp_path / "base")
    manifest = manifest_of(shelf, tmp_path, active="one", base={"model": str(base)})
    model = adapterdock.load(manifest)
    model.merge_adapter(keep="reread")
    merged = logits(model)
    weights = base / "model.safetensors"
    kept = weights.read_bytes()
    half = len(kept) // 2
    weights.unlink()  # another file: transformers maps the one that it loaded
    weights.write_bytes(kept[:half] + bytes(len(kept) - half))
    with pytest.raises(AttachError) as caught:
        model.unmerge_adapter()
    assert codes(caught) == ["AD762"]
    assert model.merged_adapters == ["one"] and torch.equal(logits(model), merged)
    weights.write_bytes(kept)
    model.unmerge_adapter()
    assert close(logits(model), shelf.one.answer)


def test_a_merge_that_the_rules_forbid_is_refused(tmp_path: Path) -> None:
    one = peft_saves(tiny_llama(), tmp_path / "one", seed=1, target_modules=["q_proj"])
    two = peft_saves(tiny_llama(), tmp_path / "two", seed=2, target_modules=["k_proj"])
    model = adapted(tiny_llama(), one, "first")
    attach(model, two, "second")
    rules = Rules(exclusive=(("first", "second"),))
    model.rules = lambda active: check_active(rules, active, dict.fromkeys(active, 8), Where())
    model.set_adapter("first")
    before = logits(model)
    with pytest.raises(PolicyError):
        model.merge_adapter("second")
    assert model.merged_adapters == []
    assert torch.equal(logits(model), before)
