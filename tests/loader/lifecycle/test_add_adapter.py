"""New adapters, compared with PEFT's."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    UsageError,
)
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from support.moes import tiny_mixtral
from support.near import close, differs
from support.new_adapters import METHODS, tied_llama
from support.peft_adapters import (
    by_peft_name,
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

CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "names": (tiny_llama, {"target_modules": ["q_proj", "v_proj"], "r": 4}),
    "all-linear": (tiny_llama, {"target_modules": "all-linear", "exclude_modules": ["v_proj"]}),
    "a pattern": (tiny_llama, {"target_modules": r".*\.0\..*q_proj", "use_rslora": True}),
    "layers": (
        tiny_llama,
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "ranks": (tiny_llama, {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens"]}),
    "replacements": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "a task": (tiny_bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "all biases": (tiny_bert, {"target_modules": ["query"], "bias": "all"}),
    "Conv1D": (tiny_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "convolutions": (
        tiny_conv,
        {"target_modules": ["first", "line", "deep", "head"], "modules_to_save": ["norm"]},
    ),
}


def with_new_adapter(base: Any, config: Any, name: str = "new") -> AdaptedModel:
    model = AdaptedModel(base)
    model.add_adapter(name, config)
    model.set_adapter(name)
    return model


def peft_creates(base: Any, config: LoraConfig) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(copy.deepcopy(base), copy.deepcopy(config))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_new_adapter_has_pefts_modules_and_shapes(kind: str, tmp_path: Path) -> None:
    make, fields = CONFIGS[kind]
    config = LoraConfig(**fields)
    model = with_new_adapter(make(), config)
    model.save_adapter(tmp_path, "new")
    mine = load_file(tmp_path / "adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model_state_dict(
            peft_creates(make(), config), save_embedding_layers=False
        )
    assert {k: tuple(v.shape) for k, v in mine.items()} == {
        k: tuple(v.shape) for k, v in theirs.items()
    }
    if kind != "replacements":  # PEFT keeps those as they are too; B is zero
        assert torch.equal(logits(model), logits(make()))


@pytest.mark.parametrize("kind", CONFIGS)
def test_peft_loads_a_trained_new_adapter(kind: str, tmp_path: Path) -> None:
    make, fields = CONFIGS[kind]
    model = with_new_adapter(make(), LoraConfig(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_adapter(tmp_path / "it", "new")
    theirs = logits(peft_loads(make(), tmp_path / "it"), inputs_of(make()))
    assert close(logits(model), theirs)
    assert differs(theirs, logits(make()))


@pytest.mark.parametrize("kind", ["names", "a task", "all biases", "embedding", "convolutions"])
def test_the_same_parameters_as_in_peft_have_gradients(kind: str) -> None:
    make, fields = CONFIGS[kind]
    config = LoraConfig(**fields)
    model = with_new_adapter(make(), config, "default")
    mine = {n for n, p in by_peft_name(model).items() if p.requires_grad}
    assert mine == by_peft_name(model).keys() & model.state_dict().keys()
    assert not any(p.requires_grad for p in model.base_model.parameters())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    theirs = [p for p in peft_creates(make(), config).parameters() if p.requires_grad]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(
        p.numel() for p in theirs
    )


def spread(tensor: torch.Tensor) -> tuple[float, float]:
    return float(tensor.abs().max()), float(tensor.std())


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_initial_values_are_pefts(init: Any) -> None:
    base = tiny_llama(hidden_size=64, intermediate_size=64)
    config = LoraConfig(r=16, target_modules=["q_proj", "embed_tokens"], init_lora_weights=init)
    if init == "orthogonal":
        config.target_modules = {"q_proj"}
    model = with_new_adapter(base, config, "default")
    mine = model.state_dict()
    theirs = {n: p for n, p in peft_creates(base, config).named_parameters() if p.requires_grad}
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        (mine_max, mine_std), (their_max, their_std) = spread(tensor), spread(theirs[name])
        assert mine_std == pytest.approx(their_std, rel=0.15, abs=1e-9), name
        assert mine_max == pytest.approx(their_max, rel=0.5, abs=1e-9), name
    if init is True:
        a = mine["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"]
        assert float(a.abs().max()) <= 1 / math.sqrt(64)


def test_the_same_seed_gives_the_same_initial_values() -> None:
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    states: list[Any] = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(with_new_adapter(tiny_llama(), config).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_config_may_be_a_mapping() -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_alpha=7)
    plain = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "lora_alpha": 7}
    assert with_new_adapter(tiny_llama(), config).state_dict().keys() == (
        with_new_adapter(tiny_llama(), plain).state_dict().keys()
    )


def test_only_the_new_adapter_is_trained(tmp_path: Path) -> None:
    base = tiny_llama()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model = with_new_adapter(base, LoraConfig(r=4, target_modules="all-linear")).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    losses: list[float] = []
    for _ in range(4):
        loss = model(input_ids=ids(), labels=ids()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(base.state_dict()[k], before[k]) for k in before)


@pytest.mark.parametrize("what", [name for name in METHODS if "experts" not in name])
def test_attaching_an_inference_adapter_does_not_freeze_a_new_one(
    what: str, tmp_path: Path
) -> None:
    make, fields = METHODS[what]
    saved = peft_saves(make(), tmp_path / "saved", target_modules=["o_proj"])
    model = with_new_adapter(make(), fields)
    model.load_adapter(saved.folder, "other")
    mine = [p for p in model._host.adapters.by_name["new"].tensors() if p.is_floating_point()]
    if what == "vera":
        mine = [p for p in mine if p.dim() == 1]  # the matrices are never trained
    assert mine and all(p.requires_grad for p in mine)
    assert not any(
        p.requires_grad for p in model._host.adapters.by_name["other"].resident.parameters.values()
    )
    model.train()
    model(input_ids=ids(), labels=ids(), adapter=["new", "other"]).loss.backward()
    assert all(p.grad is not None for p in mine)


def test_a_deleted_new_adapter_leaves_no_trace() -> None:
    base = tiny_llama()
    before = traces(base)
    model = with_new_adapter(
        base, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    model.set_adapter(None)
    model.delete_adapter("new")
    model.detach()
    assert same_traces(before, traces(base))


Q = {"target_modules": ["q_proj"]}
EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]}
PROMPT = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
REFUSED: dict[str, tuple[Any, dict[str, Any], type[AdapterdockError], str]] = {
    "nothing selected": (tiny_llama, {"target_modules": ["nowhere"]}, AttachError, "AD795"),
    "no targets, and none of PEFT's": (tiny_conv, {}, AttachError, "AD795"),
    "PEFT's are not there": (tiny_bert, {"peft_type": "LN_TUNING"}, AttachError, "AD795"),
    "pissa": (tiny_llama, {**Q, "init_lora_weights": "pissa"}, AttachError, "AD796"),
    "olora": (tiny_llama, {**Q, "init_lora_weights": "OLoRA"}, AttachError, "AD796"),
    "eva": (tiny_llama, {**Q, "init_lora_weights": "eva"}, AttachError, "AD796"),
    "mica of a rank too high": (
        tiny_llama,
        {**Q, "init_lora_weights": "mica", "r": 17},
        AttachError,
        "AD796",
    ),
    "mica with dora": (
        tiny_llama,
        {**Q, "init_lora_weights": "mica", "use_dora": True},
        AttachError,
        "AD796",
    ),
    "odd": (tiny_llama, {**Q, "init_lora_weights": "orthogonal", "r": 3}, AttachError, "AD796"),
    "orthogonal kernels": (
        tiny_conv,
        {"target_modules": ["first"], "init_lora_weights": "orthogonal"},
        AttachError,
        "AD796",
    ),
    "tied": (
        tied_llama,
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        AttachError,
        "AD796",
    ),
    "tied, replaced": (
        tied_llama,
        {**Q, "modules_to_save": ["lm_head"], "ensure_weight_tying": True},
        AttachError,
        "AD796",
    ),
    "a bias of an embedding": (
        tiny_llama,
        {"target_modules": ["embed_tokens"], "lora_bias": True},
        AttachError,
        "AD796",
    ),
    "experts with dropout": (tiny_mixtral, {**EXPERTS, "lora_dropout": 0.1}, AttachError, "AD796"),
    "experts with dora": (tiny_mixtral, {**EXPERTS, "use_dora": True}, AttachError, "AD796"),
    "a module by both": (
        tiny_llama,
        {"target_modules": ["down_proj"], "target_parameters": ["down_proj.weight"]},
        AttachError,
        "AD796",
    ),
    "a parameter of one dimension": (
        tiny_llama,
        {"target_modules": [], "target_parameters": ["norm.weight"]},
        AttachError,
        "AD796",
    ),
    "no such parameter": (
        tiny_llama,
        {**Q, "target_parameters": ["nowhere.weight"]},
        FitError,
        "AD376",
    ),
    "tokens of no embedding": (
        tiny_llama,
        {**Q, "trainable_token_indices": {"norm": [3]}},
        AttachError,
        "AD796",
    ),
    "tokens outside": (tiny_llama, {**Q, "trainable_token_indices": [61]}, FitError, "AD375"),
    "adalora": (
        tiny_llama,
        {"peft_type": "ADALORA", "target_modules": ["q_proj"], "total_step": 10},
        AttachError,
        "AD797",
    ),
    "through PEFT": (tiny_llama, {"peft_type": "BOFT", **Q}, AttachError, "AD797"),
    "both sizes of oft": (tiny_llama, {"peft_type": "OFT", "r": 2, **Q}, FitError, "AD317"),
    "oft of another start": (
        tiny_llama,
        {"peft_type": "OFT", "init_weights": "gaussian", **Q},
        AttachError,
        "AD796",
    ),
    "ia3 without its inputs": (
        tiny_conv,
        {"peft_type": "IA3", "target_modules": ["head"]},
        AttachError,
        "AD796",
    ),
    "loha of three dimensions": (
        tiny_conv,
        {"peft_type": "LOHA", "target_modules": ["deep"]},
        AttachError,
        "AD796",
    ),
    "no number of tokens": (
        tiny_llama,
        {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM"},
        AttachError,
        "AD796",
    ),
    "no text": (tiny_llama, {**PROMPT, "prompt_tuning_init": "TEXT"}, AttachError, "AD796"),
    "an unsupported initialisation": (
        tiny_llama,
        {**PROMPT, "prompt_tuning_init": "ONES"},
        AttachError,
        "AD796",
    ),
    "no tokenizer": (
        tiny_llama,
        {
            **PROMPT,
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "w4",
            "tokenizer_name_or_path": "/nowhere",
        },
        AttachError,
        "AD748",
    ),
    "another task": (tiny_t5, PROMPT, AttachError, "AD385"),
    "a model without ids": (
        tiny_conv,
        {**PROMPT, "token_dim": 4},
        FitError,
        "AD387",
    ),
    "no kind of encoder": (
        tiny_llama,
        {**PROMPT, "peft_type": "P_TUNING", "encoder_reparameterization_type": "GRU"},
        AttachError,
        "AD796",
    ),
    "no start of a prefix": (
        tiny_llama,
        {**PROMPT, "peft_type": "PREFIX_TUNING", "init_weights": "ones"},
        AttachError,
        "AD796",
    ),
    "rank zero": (tiny_llama, {**Q, "r": 0}, FitError, "AD313"),
    "a kind it cannot adapt": (tiny_llama, {"target_modules": ["norm"]}, AttachError, "AD796"),
    "an invalid pattern": (tiny_llama, {"target_modules": "q_proj["}, FitError, "AD319"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_adapter_that_cannot_be_created_changes_nothing(what: str) -> None:
    make, fields, kind, code = REFUSED[what]
    base = make()
    before = traces(base)
    model = AdaptedModel(base)
    with pytest.raises(AdapterdockError) as caught:
        model.add_adapter("new", {"peft_type": "LORA", **fields})
    assert isinstance(caught.value, kind)
    assert caught.value.code == code, str(caught.value)
    assert not model._host.adapters.by_name
    assert same_traces(before, traces(base))


def test_names_and_kinds_of_configs_are_checked() -> None:
    model = with_new_adapter(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(AttachError):
        model.add_adapter("new", LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(UsageError):
        model.add_adapter("Not A Name", LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(AttachError):
        model.add_adapter("other", "q_proj")
    with pytest.raises(FitError):
        model.add_adapter("other", {"target_modules": ["q_proj"]})
