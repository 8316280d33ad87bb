"""What transformers' peft integration tests prove of loading, switching off and deleting, proved
here: ``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    RoutingError,
    UsageError,
)
from peft import LoKrConfig
from safetensors.torch import load_file
from support.near import close, differs
from support.peft_adapters import (
    Saved,
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
from support.shelf import Shelf, files_of, manifest_of
from torch import nn


def tiny_opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=61,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        word_embed_proj_dim=16,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return OPTForCausalLM(config).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return peft_saves(tiny_opt(), tmp_path / "it", target_modules=["q_proj", "v_proj"])


@pytest.fixture
def model() -> AdaptedModel:
    return AdaptedModel(tiny_opt())


# -- loading --------------------------------------------------------------------------------


def test_base_and_adapter_load_without_a_warning_and_generate(
    saved: Saved, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_opt().save_pretrained(tmp_path / "base")
    manifest = tmp_path / "desk.yaml"
    manifest.write_text(
        "version: 1\nbase: {model: ./base}\nadapters: {it: {source: ./it}}\nactive: it\n"
    )
    adapterdock.lock(manifest)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        model = adapterdock.load(manifest, frozen=True)
    assert caplog.records == []
    assert [f.code for f in model.findings] == ["AD363"], "it does not say for which base it is"
    assert type(model.base_model).__name__ == "OPTForCausalLM"
    assert close(logits(model, inputs_of(tiny_opt())), saved.answer)
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    theirs = peft_loads(tiny_opt(), saved.folder).generate(input_ids=ids(), **settings)
    assert torch.equal(model.generate(input_ids=ids(), **settings), theirs)
    assert not torch.equal(model.generate(input_ids=ids(), adapter=None, **settings), theirs)


def test_adapters_of_other_methods_load_like_a_lora(model: AdaptedModel, tmp_path: Path) -> None:
    lokr = peft_saves(
        tiny_opt(), tmp_path / "lokr", kind=LoKrConfig, r=2, target_modules=["q_proj", "v_proj"]
    )
    model.load_adapter(lokr.folder, "it")
    model.set_adapter("it")
    assert close(logits(model), lokr.answer)
    assert not close(logits(model), logits(model.base_model))


def test_a_source_can_have_a_revision_and_a_subfolder(shelf: Shelf, hub: Any) -> None:
    hub.commit("acme/tone", {"README.md": b"no adapter on main"})
    nested = {f"deep/{path}": data for path, data in files_of(shelf.two.folder).items()}
    hub.commit("acme/tone", {"README.md": b"still none", **nested})
    hub.commit("acme/tone", files_of(shelf.one.folder), branch="test")
    model = AdaptedModel(shelf.model())
    with pytest.raises(AdapterdockError):
        model.load_adapter("hf://acme/tone", "none")
    assert list(model.adapters) == []
    model.load_adapter("hf://acme/tone@test", "branch")
    model.load_adapter("hf://acme/tone@main/deep", "folder")
    assert close(logits(model, adapter="branch"), shelf.one.answer)
    assert close(logits(model, adapter="folder"), shelf.two.answer)


def test_tensors_in_memory_need_their_config_and_a_config_its_tensors(
    model: AdaptedModel, saved: Saved
) -> None:
    tensors = load_file(saved.file)
    with pytest.raises(UsageError):
        model.load_adapter(None, "it")
    for half in ({"adapter_state_dict": tensors}, {"peft_config": saved.config}):
        with pytest.raises(AttachError) as caught:
            model.load_adapter(None, "it", **half)
        assert caught.value.code == "AD781"
    model.load_adapter(None, "it", adapter_state_dict=tensors, peft_config=saved.config)
    assert close(logits(model, adapter="it"), saved.answer)
    model.generate(input_ids=ids(), adapter="it", max_new_tokens=2)


def test_nothing_stays_on_the_meta_device(saved: Saved, tmp_path: Path) -> None:
    tiny_opt().save_pretrained(tmp_path / "base")
    model = adapterdock.load(
        {
            "version": 1,
            "base": {"model": str(tmp_path / "base")},
            "adapters": {"it": {"source": str(saved.folder)}},
        }
    )
    given = {"adapter_state_dict": load_file(saved.file), "peft_config": saved.config}
    model.load_adapter(None, "other", **given)
    everything = [*model.parameters(), *model.buffers(), *model.state_dict().values()]
    assert not any(tensor.is_meta for tensor in everything)
    for name in ("it", "other"):
        assert close(logits(model, inputs_of(tiny_opt()), adapter=name), saved.answer)


@pytest.mark.parametrize("how", ["unexpected", "missing"])
def test_unexpected_and_missing_keys_are_errors_that_name_them(
    how: str, model: AdaptedModel, saved: Saved
) -> None:
    tensors = load_file(saved.file)
    named = sorted(tensors)[0]
    if how == "unexpected":
        tensors["foobar"] = tensors[named].clone()
        named = "foobar"
    else:
        del tensors[named]
    before = traces(model.base_model)
    with pytest.raises(FitError) as caught:
        model.load_adapter(None, "it", adapter_state_dict=tensors, peft_config=saved.config)
    module = named.removeprefix("base_model.model.").partition(".lora_")[0]
    assert module in str(caught.value)
    assert same_traces(traces(model.base_model), before)


@pytest.mark.parametrize("trainable", [False, True])
def test_only_adapters_declared_trainable_train(
    trainable: bool, model: AdaptedModel, saved: Saved
) -> None:
    flags = [p.requires_grad for p in model.base_model.parameters()]
    model.load_adapter(saved.folder, "it", trainable=trainable)
    model.set_adapter("it")
    assert not any(module.training for module in model.modules())
    asked = {name for name, p in by_peft_name(model).items() if p.requires_grad and "lora_" in name}
    assert bool(asked) is trainable
    assert asked == (set(model.state_dict()) if trainable else set())
    base = [p.requires_grad for p in model.base_model.parameters()]
    assert base == ([False] * len(flags) if trainable else flags)
    model.train()
    out = model(input_ids=ids(), labels=ids())
    if trainable:
        out.loss.backward()
        moved = {name for name, p in by_peft_name(model).items() if p.grad is not None}
        assert moved == asked
        model.delete_adapter("it")
    assert [p.requires_grad for p in model.base_model.parameters()] == flags


def test_a_quantised_base_generates_with_a_device_map(shelf: Shelf, tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    base = AutoModelForCausalLM.from_pretrained(
        shelf.base,
        quantization_config=TorchAoConfig(Int8WeightOnlyConfig(version=2)),
        device_map="auto",
        dtype=torch.float32,
    )
    quantised = type(base.model.layers[0].self_attn.v_proj.weight.data)
    assert quantised is not torch.Tensor
    model = AdaptedModel(base)
    model.load_adapter(shelf.one.folder, "it")
    alone = logits(model, {"input_ids": ids()})
    answer = logits(model, {"input_ids": ids()}, adapter="it")
    assert close(answer, shelf.one.answer, 32, computed_in=torch.bfloat16)
    assert differs(answer, alone, 0.5)
    assert model.generate(input_ids=ids(), adapter="it", max_new_tokens=3).shape[1] > ids().shape[1]
    assert type(base.model.layers[0].self_attn.v_proj.weight.data) is quantised


# -- switching off, and deleting ------------------------------------------------------------


def test_disabled_gives_the_base_and_enabled_again_the_same_bits(
    model: AdaptedModel, saved: Saved
) -> None:
    model.load_adapter(saved.folder, "it")
    model.set_adapter("it")
    on = logits(model)
    model.disable_adapters()
    off = logits(model)
    model.enable_adapters()
    assert torch.equal(logits(model), on)
    assert torch.equal(off, logits(model.base_model))
    assert not close(on, off)


def test_deleting_takes_lists_and_refuses_unknown_names(model: AdaptedModel, saved: Saved) -> None:
    def names(*wanted: str) -> None:
        for name in wanted:
            model.load_adapter(saved.folder, name)

    names("one", "two")
    model.delete_adapter("one")
    assert list(model.adapters) == ["two"]
    model.delete_adapter("two")
    assert list(model.adapters) == [] and model.state_dict() == {}
    names("one", "two")
    model.delete_adapter(["one", "two"])
    assert list(model.adapters) == []
    with pytest.raises(RoutingError) as caught:
        model.delete_adapter("nobody")
    assert caught.value.code == "AD730"
    names("one", "two")
    for strangers in ("nobody", ["one", "nobody"], ["nobody", "no-one"]):
        with pytest.raises(RoutingError) as caught:
            model.delete_adapter(strangers)
        assert caught.value.code == "AD730"
        assert list(model.adapters) == ["one", "two"], "all of it or nothing"
    model.delete_adapter([])
    assert list(model.adapters) == ["one", "two"]
    model.delete_adapter(["one", "one"])
    assert list(model.adapters) == ["two"]


def test_a_replaced_module_is_deleted_with_its_adapter(tmp_path: Path) -> None:
    base = tiny_llama()
    alone, before = logits(base), traces(base)
    headed = peft_saves(
        base, tmp_path / "it", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    model = AdaptedModel(base)
    model.load_adapter(headed.folder, "it")
    assert type(base.lm_head) is nn.Linear, "the base has its own head, always"
    assert any("lm_head.modules_to_save.it" in name for name in model.state_dict())
    assert close(logits(model, adapter="it"), headed.answer)
    model.delete_adapter("it")
    assert model.state_dict() == {} and torch.equal(logits(model), alone)
    assert same_traces(traces(model.detach()), before)


def test_a_pipeline_accepts_the_model_without_warnings(
    shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoTokenizer, pipeline

    model = adapterdock.load(manifest_of(shelf, tmp_path, active="one"))
    words = AutoTokenizer.from_pretrained(shelf.base)
    with caplog.at_level(logging.WARNING, "transformers"):
        pipe = pipeline("text-generation", model=model, tokenizer=words)
        assert isinstance(pipe("a b c", max_new_tokens=4), list)
    assert not any("not supported" in record.getMessage() for record in caplog.records)
    adapters = sum(info.parameters for info in model.adapters.values())
    base = sum(p.numel() for p in shelf.model().parameters())
    assert sum(p.numel() for p in pipe.model.parameters()) == base + adapters
