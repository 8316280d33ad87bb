"""Where LoRA's tensors go, against real files that PEFT saved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.manifests.findings.finding import Finding, Severity
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import (
    AdapterFacts,
    Layout,
    ModuleKind,
    ModuleShape,
    TensorInfo,
)
from adapterdock.registry.files.header import read_header
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from support.builders import base_layout, lora_config, lora_tensors, write_base
from support.checkpoints import config_and_tensors
from support.method_fit import planned
from support.tiny_models import tiny_model


def read_adapter(folder: Path) -> AdapterFacts:
    path = folder / "adapter_model.safetensors"
    data = path.read_bytes()
    header = read_header(lambda start, length: data[start : start + length], len(data))
    config = json.loads((folder / "adapter_config.json").read_text())
    return AdapterFacts(folder.name, None, config, header)


def errors(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.severity is not Severity.WARNING]


def live_layout(model: torch.nn.Module) -> Layout:
    """A layout from a live model, as the loader makes one."""
    from transformers.pytorch_utils import Conv1D

    modules: dict[str, ModuleShape] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        owned = {n: tuple(p.shape) for n, p in module.named_parameters(recurse=False)}
        owned |= {n: tuple(p.shape) for n, p in module.named_buffers(recurse=False)}
        shape = ModuleShape(ModuleKind.OTHER, parameters=owned)
        if isinstance(module, torch.nn.Linear):
            sizes = (module.in_features, module.out_features)
            shape = ModuleShape(ModuleKind.LINEAR, *sizes, owned)
        elif isinstance(module, Conv1D):
            shape = ModuleShape(ModuleKind.CONV1D, *module.weight.shape, owned)
        elif isinstance(module, torch.nn.Embedding):
            shape = ModuleShape(ModuleKind.EMBEDDING, *module.weight.shape, owned)
        elif isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
            sizes = (module.in_channels, module.out_channels)
            kernel = tuple(module.kernel_size)
            shape = ModuleShape(ModuleKind.CONV, *sizes, owned, kernel, module.groups)
        modules[name] = shape
    return Layout(modules)


class Convolutions(torch.nn.Module):
    """A plain module with convolutions, one of them grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(4, 8, 3)
        self.grouped = torch.nn.Conv2d(8, 8, 3, groups=2)
        self.line = torch.nn.Conv1d(8, 6, 5)
        self.head = torch.nn.Linear(6, 2)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": ["q_proj", "v_proj"]}, {}),
    "all linear": ("llama", {"target_modules": "all-linear"}, {}),
    "pattern": ("llama", {"target_modules": r".*\.layers\.1\..*_proj"}, {}),
    "rslora": ("llama", {"target_modules": ["q_proj"], "use_rslora": True}, {}),
    "rank and alpha patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "rank_pattern": {r"layers\.1\..*q_proj": 2, "k_proj": 6, "^model.*up_proj": 3},
            "alpha_pattern": {"model.layers.0.self_attn.q_proj": 5, r".*_proj": 24},
            "use_rslora": True,
        },
        {},
    ),
    "exclude": (
        "llama",
        {"target_modules": ["q_proj"], "exclude_modules": ["0.self_attn.q_proj"]},
        {},
    ),
    "layers": (
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {},
    ),
    "one layer": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": 0}, {}),
    "embedding": ("llama", {"target_modules": ["q_proj", "embed_tokens"]}, {}),
    "embedding and head": ("llama", {"target_modules": ["embed_tokens", "lm_head"]}, {}),
    "tied": ("llama tied", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, {}),
    "tied together": (
        "llama tied",
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        {},
    ),
    "saved and tied together": (
        "llama tied",
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
        {},
    ),
    "saved embeddings": ("llama", {"target_modules": ["q_proj"]}, {"save_embedding_layers": True}),
    "saved embeddings twice": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"save_embedding_layers": True},
    ),
    "saved container": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]}, {}),
    "all biases": (
        "bert",
        {"target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"},
        {},
    ),
    "all biases, saved container": (
        "bert",
        {
            "target_modules": ["query"],
            "bias": "all",
            "modules_to_save": ["layer.0.output"],
            "task_type": "SEQ_CLS",
        },
        {},
    ),
    "adapted biases": ("bert", {"target_modules": ["query", "dense"], "bias": "lora_only"}, {}),
    "no biases to train": ("llama", {"target_modules": ["q_proj"], "bias": "all"}, {}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, {}),
    "conv1d with biases": ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}, {}),
    "conv1d and embeddings": ("gpt2", {"target_modules": ["c_proj", "wte", "wpe"]}, {}),
    "convolutions": ("conv", {"target_modules": ["first", "grouped", "line", "head"]}, {}),
    "convolutions, saved head": (
        "conv",
        {"target_modules": ["first"], "modules_to_save": ["head"], "bias": "all"},
        {},
    ),
    **{
        f"init {value}": ("llama", {"target_modules": ["q_proj"], "init_lora_weights": value}, {})
        for value in (True, False, "gaussian", "orthogonal", "mica")
    },
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], torch.nn.Module]]:
    import transformers

    home = tmp_path_factory.mktemp("bases")
    for kind in ("llama", "gpt2", "bert"):
        write_base(home / kind, kind)
    write_base(home / "llama tied", "llama", tie_word_embeddings=True)

    def load(kind: str) -> torch.nn.Module:
        if kind == "conv":
            return Convolutions()
        auto = transformers.AutoModelForCausalLM
        if kind == "bert":
            auto = transformers.AutoModelForSequenceClassification
        return auto.from_pretrained(home / kind)

    yield load


@pytest.mark.parametrize("case", CASES)
def test_all_tensors_of_a_peft_file_are_placed_and_scaled_as_in_peft(
    case: str, tmp_path: Path, bases: Callable[[str], torch.nn.Module]
) -> None:
    kind, fields, saving = CASES[case]
    base = bases(kind)
    if kind == "conv":
        layout = live_layout(base)
    else:
        layout = base_layout(kind.split()[0], tied="tied" in kind)
    adapted = get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 12, **fields}))
    adapted.save_pretrained(str(tmp_path / case), **saving)
    loaded = PeftModel.from_pretrained(bases(kind), str(tmp_path / case))
    wanted = {
        name.removeprefix("base_model.model."): (
            module.r["default"],
            module.lora_alpha["default"],
            module.scaling["default"],
        )
        for name, module in loaded.named_modules()
        if isinstance(module, LoraLayer)
    }
    adapter = read_adapter(tmp_path / case)
    findings, plan = check_adapter(adapter, None, layout=layout)
    assert errors(findings) == []
    assert plan is not None and plan.leftovers == ()
    assert {s.module: (s.rank, s.alpha, s.scale) for s in plan.sites} == wanted
    placed = [key for site in plan.sites for key in site.tensors.values()]
    placed += [key for module in plan.saved.values() for key in module.values()]
    placed += [*plan.biases.values(), *plan.embeddings.values()]
    assert len(placed) == len(set(placed))
    dead = {k for k in adapter.header.tensors if ".original_module." in k}
    dead |= {k for k in adapter.header.tensors if ".modules_to_save." in k}
    assert set(placed) == adapter.header.tensors.keys() - dead
    # without a base, the same tensors have the same places
    alone = planned("LORA", adapter.config, adapter.header.tensors)
    assert alone == plan


def test_a_saved_head_with_a_batch_norm_fits_with_its_statistics_and_not_without(
    tmp_path: Path,
) -> None:
    # as in PEFT's guide to semantic segmentation
    tiny_model("segformer").save_pretrained(tmp_path / "base")
    base = type(tiny_model("segformer")).from_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["decode_head"])
    get_peft_model(base, config).save_pretrained(str(tmp_path / "a"))
    adapter = read_adapter(tmp_path / "a")
    layout = layout_of(*config_and_tensors(tmp_path / "base"))
    assert layout is not None
    assert errors(check_adapter(adapter, None, layout=layout)[0]) == []

    tensors = dict(adapter.header.tensors)
    del tensors["base_model.model.decode_head.batch_norm.running_mean"]
    header = dataclasses.replace(adapter.header, tensors=tensors)
    without = dataclasses.replace(adapter, header=header)
    found = errors(check_adapter(without, None, layout=layout)[0])
    assert [f.code for f in found] == ["AD349"] and "running_mean" in found[0].message


def test_saved_modules_biases_and_embeddings_are_distinguished(
    tmp_path: Path, bases: Callable[[str], torch.nn.Module]
) -> None:
    config = LoraConfig(
        target_modules=["query"], bias="all", modules_to_save=["classifier"], task_type="SEQ_CLS"
    )
    get_peft_model(bases("bert"), config).save_pretrained(str(tmp_path / "a"))
    adapter = read_adapter(tmp_path / "a")
    _, plan = check_adapter(adapter, None, layout=base_layout("bert"))
    assert plan is not None
    assert plan.saved == {
        "classifier": {
            "bias": "base_model.model.classifier.bias",
            "weight": "base_model.model.classifier.weight",
        }
    }
    query = "bert.encoder.layer.0.attention.self.query"
    assert plan.biases[query] == f"base_model.model.{query}.base_layer.bias"
    assert "bert.embeddings.LayerNorm" in plan.biases and "classifier" not in plan.biases
    assert plan.embeddings == {}


def tensors_of(names: dict[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F32", shape) for name, shape in names.items()}


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("shift", ["model.", ""])
def test_a_file_fits_with_or_without_the_prefixes(prefix: str, shift: str) -> None:
    """Without PEFT's own prefix, and trained on the backbone without its head."""
    names = {
        f"{prefix}{shift}layers.{n}.self_attn.q_proj.lora_{f}.weight": shape
        for n in (0, 1)
        for f, shape in (("A", (4, 16)), ("B", (16, 4)))
    }
    config = lora_config(
        target_modules=rf"{shift}layers\.\d\.self_attn\.q_proj",
        alpha_pattern={f"^{shift}layers.0.*": 2},
    )
    plan = planned("LORA", config, tensors_of(names), base_layout())
    assert plan.modules == ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
    assert [site.alpha for site in plan.sites] == [2, 8]
    header_facts = AdapterFacts("a", None, config, _header(names))
    findings, _ = check_adapter(header_facts, None, layout=base_layout())
    assert errors(findings) == []


def test_an_adapter_of_a_model_with_a_head_fits_the_backbone_alone() -> None:
    whole = base_layout()
    backbone = Layout(
        {n.removeprefix("model."): m for n, m in whole.modules.items() if n.startswith("model.")},
        prefix="model",
    )
    config = lora_config(target_modules=r"model\..*q_proj")
    names = {
        f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{f}.weight": shape
        for n in (0, 1)
        for f, shape in (("A", (4, 16)), ("B", (16, 4)))
    }
    findings, plan = check_adapter(
        AdapterFacts("a", None, config, _header(names)), None, layout=backbone
    )
    assert errors(findings) == []
    assert plan is not None and plan.modules[0] == "layers.0.self_attn.q_proj"


def test_a_second_name_for_a_live_module_is_a_leftover() -> None:
    names = {
        f"{prefix}layers.0.self_attn.q_proj.lora_{f}.weight": shape
        for prefix in ("model.", "")
        for f, shape in (("A", (4, 16)), ("B", (16, 4)))
    }
    plan = planned("LORA", lora_config(), tensors_of(names), base_layout())
    assert len(plan.sites) == 2 or plan.leftovers
    twice = {
        f"{prefix}model.layers.0.self_attn.q_proj.lora_A.weight": (4, 16)
        for prefix in ("base_model.model.", "")
    }
    plan = planned("LORA", lora_config(), tensors_of(twice), base_layout())
    assert len(plan.leftovers) == 1


def test_an_invalid_name_is_a_leftover() -> None:
    odd = {"a\x1b[31m.lora_A.weight": (4, 16), f"{'a' * 600}.lora_A.weight": (4, 16)}
    plan = planned("LORA", lora_config(), tensors_of(odd))
    assert plan.sites == () and set(plan.leftovers) == set(odd)


def _header(names: dict[str, tuple[int, ...]]) -> Any:
    from support.builders import adapter_facts

    return adapter_facts(tensors={n: ("F32", s) for n, s in names.items()}).header


def test_the_roles_of_a_site_are_pefts_parameter_names() -> None:
    specs = lora_tensors({"model.layers.0.self_attn.q_proj": (16, 16)})
    info = {name: TensorInfo(dtype, shape) for name, (dtype, shape) in specs.items()}
    (site,) = planned("LORA", lora_config(), info).sites
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    assert site.tensors == {"A": f"{at}.lora_A.weight", "B": f"{at}.lora_B.weight"}
