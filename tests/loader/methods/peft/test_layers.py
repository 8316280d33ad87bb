"""Methods without a native implementation, which run through PEFT's own layers."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.float32 import keep_float32
from adapterdock.loader.methods.peft.make_layers import _classes
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from peft import HRAConfig, PeftModel
from safetensors.torch import load_file
from support.method_oracle import (
    check_quantised_and_offloaded,
    check_sums,
    check_untrained_is_refused,
    fill,
)
from support.near import close, differs
from support.peft_adapters import (
    adapted,
    attach,
    by_peft_name,
    ids,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)
from support.peft_methods import CASES, OTHERS, TARGETS, config_class, saved_by_peft

ALL = {name: (name, make, config) for name, (make, config) in CASES.items()} | OTHERS


@pytest.mark.parametrize("case", ALL)
def test_logits_match_peft_and_the_base_is_unchanged(case: str, tmp_path: Path) -> None:
    method, make, config = ALL[case]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", kind=config_class(method), **config)
    assert differs(saved.answer, alone), "the adapter must matter"

    drawn = torch.random.get_rng_state()
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it.1")  # with all checks, and nothing accepted
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.equal(logits(model), alone)
    model.set_adapter("it.1")
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert model.findings == ()
    assert model.adapters["it.1"].methods == (method,)

    assert model.detach() is base
    assert same_traces(traces(base), before)


@pytest.mark.parametrize("method", CASES)
def test_saved_tensors_have_pefts_live_names(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    model = adapted(base, saved)
    ours, theirs = model.state_dict(), peft_loads(base, saved.folder).state_dict()
    own = {name for name in theirs if _is_adapters(name, base)}
    assert own
    assert own <= ours.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in own)


def _is_adapters(name: str, base: Any) -> bool:
    plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return plain not in base.state_dict()


@pytest.mark.parametrize("method", CASES)
def test_switching_and_sums_with_a_native_adapter(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    alone = logits(base)
    saved = saved_by_peft(method, tmp_path / "it", base)
    lora = peft_saves(base, tmp_path / "lora", target_modules=["q_proj", "v_proj"])
    model = adapted(base, saved)
    attach(model, lora, "lora")
    for name, answer in (("it", saved.answer), ("lora", lora.answer), ("it", saved.answer)):
        model.set_adapter(name)
        assert close(logits(model), answer)
    both = logits(model, adapter={"it": 1.0, "lora": 1.0})
    assert differs(both, saved.answer, 1e-4)
    assert close(logits(model, adapter={"lora": 1.0, "it": 1.0}), both)
    if method == "LILY":
        with pytest.raises(RoutingError, match="computes a row from all rows"):
            logits(model, adapter_names=["it", "lora"])
        return
    rows = ["it", "lora"]
    mixed = logits(model, adapter_names=rows)
    assert close(mixed[0], saved.answer[0])
    assert close(mixed[1], lora.answer[1])
    base_row = logits(model, adapter_names=["__base__", "it"])
    assert close(base_row[0], alone[0])
    assert close(base_row[1], saved.answer[1])


SUMS = {
    "HRA": {"r": 4},
    "ROAD": {"group_size": 4},
    "BOFT": {},
    "MISS": {"r": 4},
    "GLORA": {"r": 2},
}


@pytest.mark.parametrize("method", SUMS)
def test_sums_match_dense_arithmetic(method: str, tmp_path: Path) -> None:
    check_sums("linear", tmp_path, config_class(method), **SUMS[method])


@pytest.mark.parametrize("method", CASES)
def test_bfloat16_base_matches_peft(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, saved.folder), inputs_of(base))
    answer = logits(adapted(half, saved))
    assert answer.dtype is torch.bfloat16
    assert torch.equal(answer, oracle)


@pytest.mark.parametrize("method", ["GLORA", "SHIRA", "HRA", "ROAD"])
def test_layers_at_float32_modules_run_in_float32(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    kept = {name: p.detach().clone() for name, p in base.named_parameters()}
    half = base.to(torch.bfloat16)
    keep_float32(half, ["*q_proj", "*down_proj"], kept)
    answer = logits(adapted(half, saved))
    assert answer.dtype is torch.bfloat16
    assert close(answer, saved.answer, 8)


def test_other_hooks_on_the_module_are_kept(tmp_path: Path) -> None:
    for method in ("MISS", "BEFT", "SHIRA"):  # runs the base's forward, or computes it itself
        base = CASES[method][0]()
        saved = saved_by_peft(method, tmp_path / method, base)
        module = base.model.layers[0].self_attn.q_proj
        module.register_forward_hook(lambda _module, _args, out: out + 1)
        oracle = peft_loads(base, saved.folder)
        theirs = oracle.base_model.model.model.layers[0].self_attn.q_proj
        x = torch.randn(2, 3, 16)
        model = adapted(base, saved)
        (factors,) = model._host.adapters.built_of("it").outputs["model.layers.0.self_attn.q_proj"]
        out = module(x)
        ours = factors.add(module, x, out, out, 1.0)
        plain = theirs(x) + 1 if method == "SHIRA" else theirs(x)
        assert close(ours, plain)
        model.detach()


def test_factors_can_have_the_dtype_of_the_base(tmp_path: Path) -> None:
    half = tiny_llama().to(torch.bfloat16)
    saved = saved_by_peft("MISS", tmp_path / "it", tiny_llama())
    model = adapted(half, saved, dtype=torch.bfloat16)
    assert model.adapters["it"].dtypes == (torch.bfloat16,)
    assert close(logits(model), saved.answer, 32)


def test_dtype_that_peft_cannot_compute_in_is_refused_before_attach(
    tmp_path: Path,
) -> None:
    saved = saved_by_peft("HIRA", tmp_path / "it")
    base = tiny_llama().to(torch.bfloat16)
    before = traces(base)
    model = AdaptedModel(base)
    with pytest.raises(AttachError, match="AD819"):
        attach(model, saved, dtype=torch.float16)
    assert same_traces(traces(model.detach()), before)


@pytest.mark.parametrize("method", ["C3A", "ROAD"])
def test_quantised_and_offloaded_bases_match_peft(method: str, tmp_path: Path) -> None:
    _, config = CASES[method]
    check_quantised_and_offloaded(tmp_path / "it", config_class(method), **config)


@pytest.mark.parametrize("method", ["MISS", "OSF", "GLORA", "DEFT", "HRA", "PSOFT"])
def test_layers_that_read_the_weight_can_read_an_offloaded_one(method: str, tmp_path: Path) -> None:
    from accelerate import cpu_offload

    base = tiny_llama()
    saved = saved_by_peft(method, tmp_path / "it", base)
    offloaded = cpu_offload(base)
    model = adapted(offloaded, saved)
    assert close(logits(model), saved.answer)
    assert offloaded.model.layers[0].mlp.down_proj.weight.is_meta


def test_quantised_base_that_pefts_layer_cannot_use_is_refused(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    saved = saved_by_peft("MISS", tmp_path / "it")
    base = tiny_llama()
    quantize_(base.model.layers, Int8WeightOnlyConfig(version=2))
    with pytest.raises(AttachError, match=r"AD392.*|torchao"):
        attach(AdaptedModel(base), saved)


def test_generated_tokens_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_by_peft("BOFT", tmp_path / "it", base)
    oracle, model = peft_loads(base, saved.folder), adapted(base, saved)
    for options in ({}, {"num_beams": 3}):
        settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, **options}
        theirs = oracle.generate(input_ids=ids(), **settings)
        assert torch.equal(model.generate(input_ids=ids(), **settings), theirs)
    assert not torch.equal(theirs, base.generate(input_ids=ids(), **settings))


TRAINED = [method for method in CASES if method not in ("ADAMSS", "OSF", "PVERA")]


@pytest.mark.parametrize("method", TRAINED)
def test_gradients_match_peft(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    oracle = PeftModel.from_pretrained(
        copy.deepcopy(base), str(saved.folder), adapter_name="it", is_trainable=True
    ).eval()
    oracle(**batch).loss.backward()
    model = adapted(base, saved, trainable=True)
    model(**batch).loss.backward()
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in by_peft_name(model).items() if p.grad is not None}
    assert theirs and ours.keys() == theirs.keys()
    assert all(close(ours[n], theirs[n]) for n in ours)
    assert all(p.grad is None for p in base.parameters())


@pytest.mark.parametrize("method", ["ADAMSS", "OSF"])
def test_methods_that_need_more_than_gradients_cannot_be_trained(
    method: str, tmp_path: Path
) -> None:
    base = CASES[method][0]()
    with pytest.raises(AttachError, match="AD745"):
        attach(AdaptedModel(base), saved_by_peft(method, tmp_path / "it", base), trainable=True)


def test_training_step_and_dropout_change_the_output(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_by_peft("MISS", tmp_path / "it", base, miss_dropout=0.5)
    model = adapted(base, saved, trainable=True)
    kept = logits(model)
    assert torch.equal(kept, logits(model))
    base.train()
    assert not torch.equal(logits(model), logits(model))
    base.eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model(**inputs_of(base), labels=ids()).loss.backward()
    optimizer.step()
    assert differs(logits(model), kept, 1e-4)
    assert torch.equal(logits(base), logits(tiny_llama()))


def test_state_dict_can_be_saved_and_loaded(tmp_path: Path) -> None:
    base = tiny_llama()
    first = adapted(base, saved_by_peft("HRA", tmp_path / "it", base))
    other = peft_saves(base, tmp_path / "o", kind=HRAConfig, seed=3, **CASES["HRA"][1])
    state = {name: value.clone() for name, value in first.state_dict().items()}
    first.load_state_dict({n: torch.zeros_like(v) for n, v in state.items()})
    assert differs(logits(first), first.base_model(ids()).logits + 1)
    first.load_state_dict(state)
    first.detach()
    second = adapted(base, other)
    second.load_state_dict(state)
    assert close(logits(second), logits(peft_loads(base, tmp_path / "it")))


def test_model_moves_with_all_tensors_of_its_layers(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_by_peft("SUPERTUNING", tmp_path / "it", base)
    model = adapted(base, saved)
    model.to(torch.float64)
    answer = logits(model)
    assert answer.dtype is torch.float64
    assert close(answer.float(), saved.answer)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.int32}


@pytest.mark.parametrize("method", ["HRA", "SUPERTUNING", "GLORA"])
def test_layers_read_the_current_weights_of_the_base(method: str, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_by_peft(method, tmp_path / "it", base)
    model = adapted(base, saved)
    for parameter in base.parameters():
        parameter.data = parameter.data * 1.25
    expected = logits(peft_loads(base, saved.folder), inputs_of(base))
    assert differs(expected, saved.answer)
    assert close(logits(model), expected)


def test_hot_swap_with_another_rank_and_another_method(tmp_path: Path) -> None:
    base = tiny_llama()
    one = saved_by_peft("HRA", tmp_path / "one", base)
    two = peft_saves(base, tmp_path / "two", kind=HRAConfig, **{**TARGETS, "r": 2})
    three = saved_by_peft("MISS", tmp_path / "three", base)
    lora = peft_saves(base, tmp_path / "lora", target_modules=["v_proj"])
    model = AdaptedModel(base)
    model.load_adapter(one.folder, "it")
    model.set_adapter("it")
    for saved in (two, three, lora, one):
        model.load_adapter(saved.folder, "it", hotswap=True)
        assert close(logits(model), saved.answer)


def test_deleted_adapter_is_freed(tmp_path: Path) -> None:
    base = tiny_llama()
    model = adapted(base, saved_by_peft("RANDLORA", tmp_path / "it", base))
    adapter = model._host.adapters.by_name["it"]
    tensors = [weakref.ref(t) for t in adapter.tensors()]
    layers = [
        weakref.ref(f.layer)
        for fs in model._host.adapters.built_of(adapter.name).outputs.values()
        for f in fs
    ]
    assert tensors and layers
    shared = sum(name.endswith("randlora_A.it") for name in adapter.resident.parameters)
    assert shared > 1
    assert model.adapters["it"].parameters < sum(
        p.numel() for p in adapter.resident.parameters.values()
    )
    del adapter
    model.delete_adapter("it")
    gc.collect()
    assert not any(ref() is not None for ref in (*tensors, *layers))
    assert model.state_dict() == {}


def test_peft_adapter_cannot_be_combined_or_act_on_a_merged_weight(
    tmp_path: Path,
) -> None:
    base = tiny_llama()
    model = adapted(base, saved_by_peft("HRA", tmp_path / "it", base))
    attach(model, peft_saves(base, tmp_path / "lora", target_modules=["q_proj"]), "lora")
    with pytest.raises((AttachError, RoutingError), match="is not made of plain pairs"):
        model.define_composition("both", {"it": 1.0, "lora": 1.0}, combine="linear")
    model.merge_adapter("lora")  # the delta is computed from the base's own weight
    with pytest.raises(RoutingError):
        model.set_adapter("it")


def test_untrained_adapter_is_refused(tmp_path: Path) -> None:
    change = fill(0.0, "miss_block")
    kind, config = config_class("MISS"), CASES["MISS"][1]
    check_untrained_is_refused(tiny_llama, tmp_path / "it", kind, change, **config)


def test_table_of_methods_matches_peft() -> None:
    from adapterdock.manifests.findings.finding import Where

    for method in CASES:
        kind, tuner = _classes(method, Where())
        assert kind is config_class(method) and hasattr(tuner, "prefix")


@pytest.mark.parametrize("method", CASES)
def test_saved_file_matches_peft_or_saving_is_refused(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it.1")
    try:
        model.save_adapter(tmp_path / "out", "it.1")
    except AttachError as error:
        assert error.code == "AD769" and method in ("SHIRA", "VBLORA", "UNILORA")
        assert not (tmp_path / "out").exists()
        return
    mine, theirs = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "out", saved.folder)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert close(logits(peft_loads(base, tmp_path / "out")), saved.answer)
