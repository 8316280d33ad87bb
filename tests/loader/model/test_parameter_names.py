"""Names in ``named_parameters``: for LoRA+, ``functional_call`` and ``torch.export``."""

from __future__ import annotations

import copy
import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from peft import (
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from peft.optimizers import create_loraplus_optimizer
from support.near import close, differs
from support.peft_adapters import (
    attach,
    inputs_of,
    logits,
    peft_saves,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
)
from torch import nn
from torch.func import functional_call

QV: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "LoRA": (tiny_llama, None, QV),
    "DoRA": (tiny_llama, None, {**QV, "use_dora": True}),
    "embedding": (tiny_llama, None, {"target_modules": ["embed_tokens", "q_proj"]}),
    "tokens": (tiny_llama, None, {**QV, "trainable_token_indices": [3, 4, 5, 9]}),
    "whole": (tiny_llama, None, {**QV, "modules_to_save": ["lm_head"]}),
    "LoRA on a whole one": (
        tiny_bert,
        None,
        {"target_modules": ["query"], "modules_to_save": ["classifier"], "bias": "lora_only"},
    ),
    "all biases": (tiny_bert, None, {"target_modules": ["query"], "bias": "all"}),
    "Conv1D": (tiny_gpt2, None, {"target_modules": ["c_attn"]}),
    "parameters": (
        tiny_llama,
        None,
        {"target_parameters": ["down_proj.weight"], "target_modules": []},
    ),
    "IA3": (tiny_llama, IA3Config, {**QV, "feedforward_modules": []}),
    "LoHa": (tiny_llama, LoHaConfig, QV),
    "VeRA": (tiny_llama, VeraConfig, QV),
    "trained tokens": (tiny_llama, TrainableTokensConfig, {"token_indices": [3, 4, 5, 9]}),
    "prompt": (
        tiny_llama,
        PromptTuningConfig,
        {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ),
}
NAMES = ["it", "a.b", "a.b.weight", "eval", "type", "lora_a", "v2.0", "end."]


def made(kind: str, folder: Path, name: str = "it", **options: Any) -> AdaptedModel:
    make, of, config = KINDS[kind]
    base = make()
    model = AdaptedModel(base)
    attach(model, peft_saves(base, folder / "it", kind=of, **config), name, **options)
    return model


def walked(model: nn.Module, name: str) -> Any:
    return reduce(getattr, name.split("."), model)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_name_can_be_followed_by_attributes(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path)
    for name, parameter in model.named_parameters():
        assert walked(model, name) is parameter, name
        assert model.get_parameter(name) is parameter
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module if name else module is model
    state = model.state_dict(keep_vars=True)
    own = {n for n, p in model.named_parameters() if not n.startswith("base_model.")}
    assert {n.removeprefix("tuners.") for n in own} <= state.keys()
    for name, value in state.items():
        if isinstance(value, nn.Parameter):
            assert model.get_parameter(name) is value


@pytest.mark.parametrize("name", NAMES)
def test_adapter_names_may_have_dots_or_equal_attributes(name: str, tmp_path: Path) -> None:
    base = tiny_llama()
    model = AdaptedModel(base)
    saved = peft_saves(base, tmp_path / "it", **QV, modules_to_save=["lm_head"])
    for one in ("other", name, "weight", f"{name}x"):
        attach(model, saved, one)
    assert (
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_A.{name}.weight"
        in model.state_dict()
    )
    assert f"base_model.model.lm_head.modules_to_save.{name}.weight" in model.state_dict()
    for full, parameter in model.named_parameters():
        assert walked(model, full) is parameter, full
    model.load_state_dict(model.state_dict())
    model.load_state_dict(
        {n: p for n, p in model.named_parameters() if n.startswith("tuners.")}, strict=True
    )
    before = [n for n, _ in model.named_parameters()]
    model.delete_adapter(name)
    left = [n for n, _ in model.named_parameters()]
    assert len(left) == len(before) - 9 and set(left) < set(before)
    assert all(walked(model, n) is p for n, p in model.named_parameters())


def test_nodes_disappear_with_the_last_adapter_and_follow_a_hot_swap(tmp_path: Path) -> None:
    base = tiny_llama()
    model = AdaptedModel(base)
    empty = [n for n, _ in model.named_modules()]
    one = peft_saves(base, tmp_path / "one", **QV)
    two = peft_saves(base, tmp_path / "two", r=2, target_modules=["o_proj"])
    attach(model, one, "a")
    attach(model, two, "b")
    attach(model, two, "a", replace=True)
    for _ in range(2):
        assert all(walked(model, n) is p for n, p in model.named_parameters())
        assert not any("q_proj" in n for n in model.state_dict())
        if not model.merged_adapters:
            model.merge_adapter("a")
    model.unmerge_adapter()
    model.delete_adapter(["a", "b"])
    assert [n for n, _ in model.named_modules()] == empty
    assert model.state_dict() == {}


@pytest.mark.parametrize(
    "fields", [QV, {"target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]}]
)
def test_loraplus_groups_the_parameters_as_it_groups_pefts(fields: dict[str, Any]) -> None:
    base, config = tiny_llama(), LoraConfig(r=2, **fields)
    theirs = get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
    model = AdaptedModel(base)
    model.add_adapter("default", config)
    how: Any = {"lr": 1e-3, "loraplus_lr_ratio": 4, "loraplus_weight_decay": 0.1}

    def groups(of: Any) -> list[tuple[float, float, list[str]]]:
        names = {id(p): n[n.index("base_model.") :] for n, p in of.named_parameters()}
        optimizer = create_loraplus_optimizer(of, torch.optim.AdamW, **how)
        return [
            (g["lr"], g["weight_decay"], sorted(names[id(p)] for p in g["params"]))
            for g in optimizer.param_groups
        ]

    assert groups(model) == groups(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call_uses_the_tensors_passed_to_it(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path)
    inputs, before = inputs_of(model.base_model), logits(model)
    own = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("tuners.")}
    noise = torch.Generator().manual_seed(3)
    others = {n: p + 0.1 * torch.randn(p.shape, generator=noise).to(p) for n, p in own.items()}
    alone = logits(model.base_model)
    same = functional_call(model, own, (), dict(inputs)).logits
    assert close(same, before)
    found = functional_call(model, others, (), dict(inputs)).logits
    assert differs(found, before)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(model.base_model), alone)
    model.load_state_dict(others)
    assert close(logits(model), found)


@pytest.mark.parametrize("kind", ["tokens", "DoRA", "whole", "all biases"])
def test_functional_call_has_the_gradients_of_the_parameters(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path, trainable=True)
    inputs = inputs_of(model.base_model)
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def loss(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(model, tensors, (), dict(inputs)).logits.square().mean()

    found = torch.func.grad(loss)({n: p.detach() for n, p in own.items()})
    model(**inputs).logits.square().mean().backward()
    for name, parameter in own.items():
        assert parameter.grad is not None
        assert close(found[name], parameter.grad), name


def test_functional_call_refuses_parameters_it_cannot_exchange(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_llama())
    base, inputs = model.base_model, inputs_of(model.base_model)
    attach(model, peft_saves(base, tmp_path / "one", **QV), "one")
    boft: dict[str, Any] = {"kind": BOFTConfig, "target_modules": ["q_proj"], "boft_block_size": 4}
    attach(model, peft_saves(base, tmp_path / "boft", **boft), "boft")
    own = {n: p.detach() * 2 for n, p in model.named_parameters() if n.startswith("tuners.")}
    for options in ({"adapter": "boft"}, {"adapter_names": ["one", "__base__"]}):
        with pytest.raises(RoutingError) as caught:
            functional_call(model, own, (), {**inputs, **options})
        assert {f.code for f in caught.value.findings} == {"AD384"}
    functional_call(model, own, (), {**inputs, "adapter": "one"})
    answer = logits(model, adapter="boft")
    beside = {n: p for n, p in own.items() if ".one." in n}
    found = functional_call(model, beside, (), {**inputs, "adapter": "boft"}).logits
    assert torch.equal(found, answer)


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "embedding", "tokens", "whole", "all biases"])
def test_an_exported_program_includes_the_active_adapter(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path)
    inputs = {k: v[:1] for k, v in inputs_of(model.base_model).items()}
    wanted = logits(model, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (), dict(inputs))
    found = logits(program.module(), inputs)
    assert close(found, wanted)
    assert any(name.startswith("tuners.") for name in program.state_dict)
    base = logits(model.base_model, inputs)
    assert differs(found, base)
    assert torch.equal(logits(model, inputs), wanted)


def test_an_exported_program_without_an_active_adapter_is_the_base(tmp_path: Path) -> None:
    model = made("LoRA", tmp_path)
    model.set_adapter(None)
    inputs = {k: v[:1] for k, v in inputs_of(model.base_model).items()}
    program = torch.export.export(model, (), dict(inputs))
    assert close(logits(program.module(), inputs), logits(model.base_model, inputs))


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_of_the_tree_follows_the_base(training: bool) -> None:
    model = AdaptedModel(tiny_llama().train(training))
    model.add_adapter("it", LoraConfig(r=2, **QV))
    assert {module.training for module in model.modules()} == {training}
    model.train(not training)
    model.add_adapter("more", LoraConfig(r=2, **QV))
    assert {module.training for module in model.modules()} == {not training}
