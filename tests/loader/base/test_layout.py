"""The layout of a live model of any origin and storage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.registry.files.facts import ModuleKind, ModuleShape
from peft import LoraConfig, get_peft_model
from support.tiny_models import tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D


class Block(nn.Module):
    """One module of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.conv1d = Conv1D(7, 3)
        self.embedding = nn.Embedding(11, 3)
        self.conv = nn.Conv2d(4, 8, (3, 5), groups=2, bias=False)
        self.upsample = nn.ConvTranspose2d(4, 8, 3)
        self.norm = nn.LayerNorm(3)
        self.bias_free_norm = nn.LayerNorm(3, elementwise_affine=False)
        self.act = nn.GELU()
        self.experts = Experts()


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(4, 3, 6))
        self.register_buffer("counts", torch.zeros(4))


def test_any_module_has_a_layout() -> None:
    model = nn.ModuleDict({"block": Block()})
    layout = layout_of_model(model)
    weight, bias = "weight", "bias"
    assert dict(layout.modules) == {
        "block": ModuleShape(ModuleKind.OTHER),
        "block.linear": ModuleShape(ModuleKind.LINEAR, 3, 5, {weight: (5, 3), bias: (5,)}),
        "block.conv1d": ModuleShape(ModuleKind.CONV1D, 3, 7, {weight: (3, 7), bias: (7,)}),
        "block.embedding": ModuleShape(ModuleKind.EMBEDDING, 11, 3, {weight: (11, 3)}),
        "block.conv": ModuleShape(ModuleKind.CONV, 4, 8, {weight: (8, 2, 3, 5)}, (3, 5), 2),
        "block.upsample": ModuleShape(
            ModuleKind.OTHER, parameters={weight: (4, 8, 3, 3), bias: (8,)}
        ),
        "block.norm": ModuleShape(ModuleKind.NORM, parameters={weight: (3,), bias: (3,)}),
        "block.experts": ModuleShape(
            ModuleKind.OTHER, parameters={"gate_up_proj": (4, 3, 6)}, buffers={"counts": (4,)}
        ),
    }
    assert (layout.prefix, layout.tied, layout.output_modules) == ("", {}, frozenset())


class Packed4bit(nn.Linear):
    """As bitsandbytes stores it: half a byte a value, in one column."""

    def __init__(self, inner: int, out: int) -> None:
        super().__init__(inner, out, bias=False)
        packed = torch.zeros(inner * out // 2, 1, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)


class QuantLinear(nn.Module):
    """Like GPTQ's: not an ``nn.Linear``, with buffers only."""

    def __init__(self, inner: int, out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inner, out
        self.register_buffer("qweight", torch.zeros(inner // 8, out, dtype=torch.int32))


def test_quantised_linears_have_their_logical_sizes() -> None:
    model = nn.ModuleDict({"four": Packed4bit(16, 6), "gptq": QuantLinear(16, 6)})
    layout = layout_of_model(model)
    assert layout.modules["four"] == ModuleShape(ModuleKind.LINEAR, 16, 6, {"weight": (6, 16)})
    assert layout.modules["gptq"] == ModuleShape(ModuleKind.LINEAR, 16, 6)


def test_parameters_offloaded_to_meta_keep_their_shapes() -> None:
    model: Any = tiny_model("llama tied")
    loaded = layout_of_model(model)
    assert layout_of_model(model.to("meta")) == loaded
    assert loaded.tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_offloaded_tied_parameters_are_known_from_transformers_record() -> None:
    model: Any = tiny_model("llama tied").to("meta")
    model.lm_head.weight = nn.Parameter(torch.empty(64, 32, device="meta"))
    assert layout_of_model(model).tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_untied_embeddings_are_not_tied() -> None:
    model: Any = tiny_model("llama tied")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert layout_of_model(model).tied == {}


def test_manually_tied_parameters_map_to_their_first_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model["c"].weight.data = model["a"].weight.data
    assert layout_of_model(model).tied == {"b.weight": "a.weight", "c.weight": "a.weight"}


@pytest.mark.parametrize(
    ("name", "task", "left_out"),
    [
        ("llama", "CAUSAL_LM", {"lm_head"}),
        ("bert", None, {"cls.predictions.decoder"}),
        ("llama for sequences", "SEQ_CLS", {"score"}),
        ("bert for sequences", "SEQ_CLS", {"classifier"}),
        ("t5", "SEQ_2_SEQ_LM", {"lm_head"}),
        ("gpt2", "CAUSAL_LM", {"lm_head"}),
        ("qwen2_vl", "CAUSAL_LM", {"lm_head"}),
    ],
)
def test_linears_without_output_modules_are_pefts_all_linear(
    name: str, task: str | None, left_out: set[str]
) -> None:
    model: Any = tiny_model(name)
    layout = layout_of_model(model)
    linear = {
        n for n, m in layout.modules.items() if m.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D)
    }
    assert layout.output_modules == left_out
    config = LoraConfig(target_modules="all-linear", task_type=task)
    adapted = get_peft_model(model, config)
    targeted = {n for n in adapted.targeted_module_names if not n.startswith("base_model.")}
    assert targeted == linear - layout.output_modules


class LinearOfMine(nn.Module):
    """Multiplies with the transposed weight; only its name suggests a linear."""

    def __init__(self, inner: int, out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inner, out
        self.weight = nn.Parameter(torch.randn(inner, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Projection(LinearOfMine):
    pass


class Packed(LinearOfMine):
    def __init__(self, inner: int, out: int) -> None:
        super().__init__(inner, out)
        self.weight = nn.Parameter(torch.zeros(out, inner // 2, dtype=torch.uint8), False)


@pytest.mark.parametrize("kind", [LinearOfMine, Projection])
def test_a_class_name_does_not_make_a_module_linear(kind: type[nn.Module]) -> None:
    shape = layout_of_model(nn.ModuleDict({"it": kind(4, 6)})).modules["it"]
    assert shape == ModuleShape(ModuleKind.OTHER, parameters={"weight": (4, 6)})


def test_a_module_with_a_packed_weight_is_linear_under_any_name() -> None:
    assert layout_of_model(nn.ModuleDict({"it": Packed(4, 6)})).modules["it"] == ModuleShape(
        ModuleKind.LINEAR, 4, 6, {"weight": (6, 4)}
    )


def test_torchs_own_quantised_linears_keep_their_sizes() -> None:
    module = torch.ao.nn.quantized.dynamic.Linear(4, 6)
    shape = layout_of_model(nn.ModuleDict({"it": module})).modules["it"]
    assert (shape.kind, shape.in_features, shape.out_features) == (ModuleKind.LINEAR, 4, 6)
