"""What a new adapter's config may name: PEFT's verdict, target by target."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, FitError
from peft import IA3Config, LNTuningConfig, LoHaConfig, LoraConfig, get_peft_model
from support.peft_adapters import tiny_conv, tiny_llama
from support.small_nets import Attention
from torch import nn


class Listed(nn.Module):
    """Modules in a list, in a sequence, and in a module without a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.listed = nn.ModuleList([nn.Linear(4, 4)])
        self.named = nn.ModuleDict({"one": nn.Linear(4, 4)})
        self.called = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.kept = nn.ParameterList([nn.Parameter(torch.ones(4))])
        self.example = torch.randn(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.called(self.named["one"](self.listed[0](self.first(x)))) * self.kept[0]


CASES: dict[str, tuple[Any, type[Any], dict[str, Any]]] = {
    "names": (tiny_llama, LoraConfig, {"target_modules": ["q_proj", "down_proj"]}),
    "a norm": (tiny_llama, LoraConfig, {"target_modules": ["q_proj", "input_layernorm"]}),
    "an activation": (tiny_llama, LoraConfig, {"target_modules": ["q_proj", "act_fn"]}),
    "a container": (tiny_llama, LoraConfig, {"target_modules": ["q_proj", "self_attn"]}),
    "a list of layers": (tiny_llama, LoraConfig, {"target_modules": ["q_proj", "layers"]}),
    "a pattern of a whole layer": (
        tiny_llama,
        LoraConfig,
        {"target_modules": r".*\.0\.self_attn.*"},
    ),
    "a pattern of its linears": (
        tiny_llama,
        LoraConfig,
        {"target_modules": r".*\.0\.self_attn\..*_proj"},
    ),
    "a norm kept out": (
        tiny_llama,
        LoraConfig,
        {"target_modules": ["q_proj", "norm"], "exclude_modules": ["norm"]},
    ),
    "a norm kept whole": (
        tiny_llama,
        LoraConfig,
        {"target_modules": ["q_proj", "norm"], "modules_to_save": ["norm"]},
    ),
    "another name that is nowhere": (
        tiny_llama,
        LoraConfig,
        {"target_modules": ["q_proj", "nowhere"]},
    ),
    "only a name that is nowhere": (tiny_llama, LoraConfig, {"target_modules": ["nowhere"]}),
    "nowhere, with a whole module": (
        tiny_llama,
        LoraConfig,
        {"target_modules": ["nowhere"], "modules_to_save": ["lm_head"]},
    ),
    "nowhere, with tokens": (
        tiny_llama,
        LoraConfig,
        {"target_modules": ["nowhere"], "trainable_token_indices": [3]},
    ),
    "tokens alone": (
        tiny_llama,
        LoraConfig,
        {"target_modules": [], "trainable_token_indices": [3]},
    ),
    "parameters alone": (
        tiny_llama,
        LoraConfig,
        {"target_modules": [], "target_parameters": ["down_proj.weight"]},
    ),
    "all-linear": (tiny_llama, LoraConfig, {"target_modules": "all-linear"}),
    "LoHa at an embedding": (
        tiny_llama,
        LoHaConfig,
        {"target_modules": ["q_proj", "embed_tokens"]},
    ),
    "LoHa at linears": (tiny_llama, LoHaConfig, {"target_modules": ["q_proj", "v_proj"]}),
    "IA3 at a norm": (
        tiny_llama,
        IA3Config,
        {"target_modules": ["k_proj", "norm"], "feedforward_modules": []},
    ),
    "LN tuning at a norm": (tiny_llama, LNTuningConfig, {"target_modules": ["norm"]}),
    "LN tuning at a linear": (tiny_llama, LNTuningConfig, {"target_modules": ["q_proj"]}),
    "a batch norm": (tiny_conv, LoraConfig, {"target_modules": ["first", "norm"]}),
    "a ModuleList whole": (
        Listed,
        LoraConfig,
        {"target_modules": ["first"], "modules_to_save": ["listed"]},
    ),
    "a ModuleDict whole": (
        Listed,
        LoraConfig,
        {"target_modules": ["first"], "modules_to_save": ["named"]},
    ),
    "a ParameterList whole": (
        Listed,
        LoraConfig,
        {"target_modules": ["first"], "modules_to_save": ["kept"]},
    ),
    "a Sequential whole": (
        Listed,
        LoraConfig,
        {"target_modules": ["first"], "modules_to_save": ["called"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_targets_of_a_config_are_adapted_or_refused_as_in_peft(case: str) -> None:
    make, kind, fields = CASES[case]
    base, config = make(), kind(**fields)
    theirs: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError, TypeError):
            theirs = get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
    model = AdaptedModel(base)
    if theirs is None:
        with pytest.raises(AdapterdockError):
            model.add_adapter("new", config)
        assert not model.adapters
        return
    model.add_adapter("new", config)
    wanted = {n: tuple(p.shape) for n, p in theirs.named_parameters() if p.requires_grad}
    found = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
    assert {
        name[name.index("base_model.") :].replace(".new", ".default"): shape
        for name, shape in found.items()
    } == wanted


def test_an_attention_layer_that_would_be_left_out_is_an_error() -> None:
    model = AdaptedModel(Attention())
    with pytest.raises(AdapterdockError):
        model.add_adapter("new", LoraConfig(r=2, target_modules=["mix", "wide"]))
    model.add_adapter("new", LoraConfig(r=2, target_modules=["wide"]))


def test_the_finding_names_the_tensors_that_are_left_out() -> None:
    with pytest.raises(AttachError) as caught:
        AdaptedModel(tiny_llama()).add_adapter(
            "new", LoraConfig(target_modules=["q_proj", "input_layernorm", "act_fn"])
        )
    (finding,) = caught.value.findings
    assert finding.code == "AD796"
    assert "4 modules" in finding.message and "input_layernorm" in finding.message
    assert finding.found == "norm, no weight"


@pytest.mark.parametrize(("whole", "fits"), [("listed", False), ("called", True)])
def test_a_saved_list_of_modules_is_not_loaded(whole: str, fits: bool) -> None:
    base = Listed()
    state = {f"base_model.model.{whole}.0.weight": torch.zeros(4, 4)}
    state[f"base_model.model.{whole}.0.bias"] = torch.ones(4)
    state["base_model.model.first.lora_A.weight"] = torch.ones(2, 4)
    state["base_model.model.first.lora_B.weight"] = torch.ones(4, 2)
    config = LoraConfig(r=2, target_modules=["first"], modules_to_save=[whole])
    model = AdaptedModel(base)
    if fits:
        model.load_adapter(None, "it", adapter_state_dict=state, peft_config=config)
        assert torch.equal(model(base.example, adapter="it"), torch.ones(3, 4))
        return
    with pytest.raises(FitError) as caught:
        model.load_adapter(None, "it", adapter_state_dict=state, peft_config=config)
    assert {f.code for f in caught.value.findings} == {"AD383"}
