"""Two verdicts on one adapter: from files alone, and on the live model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.disk_names import live_tensors, places_on_disk
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.findings.finding import Finding, Severity
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.checks.candidate import Ask
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.checks.new_adapter import plan_new_adapter
from adapterdock.registry.files.facts import (
    AdapterFacts,
    AdapterPlan,
    BaseFacts,
    Header,
    Layout,
    ModuleKind,
    TensorInfo,
)
from adapterdock.registry.files.names import PEFT_PREFIX
from adapterdock.registry.methods.table import METHODS
from torch import nn

from .corpus import BASES
from .tiny_models import TINY

OK, UNCHECKED, REFUSED = "ok", "unchecked", "refused"

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
FURTHER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wavlm": (
        "WavLMModel",
        "WavLMConfig",
        {
            **SMALL,
            "conv_dim": [16, 16],
            "conv_kernel": [3, 3],
            "conv_stride": [2, 2],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
    "siglip vision": (
        "SiglipVisionModel",
        "SiglipVisionConfig",
        {**SMALL, "image_size": 16, "patch_size": 4},
    ),
    "hunyuan_v1_moe": (
        "HunYuanMoEV1ForCausalLM",
        "HunYuanMoEV1Config",
        {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "moe_topk": 2},
    ),
}
"""Kinds of models that never call some of their modules, or name others than one expects."""
ALL = {**TINY, **{f"corpus {name}": one for name, one in BASES.items()}, **FURTHER}
"""Every kind of model, each once."""
KINDS = [name for name, one in ALL.items() if one not in TINY.values() or name in TINY]

VIRTUAL = {
    "PROMPT_TUNING": {},
    "P_TUNING": {"encoder_hidden_size": 8},
    "PREFIX_TUNING": {},
}
FIELDS: dict[str, dict[str, Any]] = {
    "LORA": {"r": 2, "lora_alpha": 4},
    "LORA, DoRA": {"r": 2, "lora_alpha": 4, "use_dora": True},
    "LORA, biases": {"r": 2, "lora_alpha": 4, "bias": "all"},
    "IA3": {"feedforward_modules": []},
    "LOHA": {"r": 2, "alpha": 4},
    "LOKR": {"r": 2, "alpha": 4},
    "OFT": {"oft_block_size": 4, "use_cayley_neumann": False},
    "ADALORA": {"r": 2, "lora_alpha": 4},
    "VERA": {"r": 2},
    "LN_TUNING": {},
    "TRAINABLE_TOKENS": {"token_indices": [1, 3]},
}
"""Each native method that acts on modules, with its fields."""


@dataclass(frozen=True)
class Verdict:
    """What is said of an adapter, why, and where it acts."""

    status: str
    modules: frozenset[str] = frozenset()
    why: str = ""

    @classmethod
    def of(cls, findings: list[Finding], modules: frozenset[str]) -> Verdict:
        kinds = {finding.severity for finding in findings}
        bad = [one for one in findings if one.severity in (Severity.ERROR, Severity.UNCHECKED)]
        why = "; ".join(f"{one.code} {one.message}" for one in bad)[:400]
        if Severity.ERROR in kinds:
            return cls(REFUSED, why=why)
        return cls(UNCHECKED if Severity.UNCHECKED in kinds else OK, modules, why)


@dataclass(frozen=True)
class Adapter:
    """A config and tensors, by their names on disk."""

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def facts(self) -> AdapterFacts:
        infos = {
            name: TensorInfo("F32" if t.is_floating_point() else "I64", tuple(t.shape), 0, t.nbytes)
            for name, t in self.tensors.items()
        }
        return AdapterFacts("it", None, self.config, Header(infos))


def tiny_base(kind: str) -> Any:
    """A model of one of ``KINDS`` with random weights."""
    name, config, options = ALL[kind]
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**options)).eval()


def base_facts(model: Any) -> BaseFacts:
    """What the files of this model's checkpoint would say of it."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    places = places_on_disk(model, live_tensors(model))
    tensors = {key: TensorInfo(place.dtype, place.shape) for key, place in places.items()}
    return BaseFacts(None, config, tensors, layout_of(config, tensors))


def from_files(adapter: Adapter, base: BaseFacts) -> Verdict:
    """What ``validate`` says: without torch, but for the values of these very tensors."""
    ask = Ask(lambda name: not adapter.tensors[name].any())
    findings, plan = check_adapter(adapter.facts, base, ask=ask)
    return Verdict.of(findings, _modules(plan, base.layout))


def live(adapter: Adapter, model: nn.Module) -> Verdict:
    """What attaching says; the model is afterwards as it was."""
    adapted = AdaptedModel(model)
    try:
        adapted.load_adapter(
            None, "it", peft_config=adapter.config, adapter_state_dict=adapter.tensors
        )
    except AdapterdockError as error:
        return Verdict.of(list(error.findings), frozenset())
    else:
        it = adapted._host.adapters.by_name["it"]
        return Verdict(OK, frozenset(it.sites) | frozenset(it.replaced))
    finally:
        adapted.detach()


def agree(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts are one: what files cannot tell, the live model may."""
    if one.status == UNCHECKED:
        return True
    return one.status == other.status and one.modules == other.modules


def adapters(base: BaseFacts) -> Iterator[tuple[str, Adapter]]:
    """One adapter of each native method wherever it can sit, and some that are odd."""
    for name, fields in FIELDS.items():
        method = name.partition(",")[0]
        chosen = None if method == "TRAINABLE_TOKENS" else [*_places(base, method, fields)]
        if chosen is None or chosen:
            yield from _named(name, base, {"peft_type": method, "target_modules": chosen, **fields})
    for method, fields in VIRTUAL.items():
        for task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
            config = {"peft_type": method, "task_type": task, "num_virtual_tokens": 3, **fields}
            yield from _named(f"{method}, {task}", base, config)
    yield from _odd(base)


def _odd(base: BaseFacts) -> Iterator[tuple[str, Adapter]]:
    """LoRAs at modules that are never called, with and without values; on parameters of experts,
    named in part; with whole modules; of another size."""
    layout, lora = base.layout, {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    assert layout is not None
    modules = layout.modules.items()
    linear = [name for name, one in modules if one.kind is ModuleKind.LINEAR and one.in_features]
    never = [name for name in linear if not layout.modules[name].called]
    called = [name for name in linear if layout.modules[name].called][:3]
    if never and (made := _made(base, {**lora, "target_modules": [*called, *never]})) is not None:
        yield "LORA where nothing is called", made
        zeros = {
            key: value * 0 if any(f".{name}.lora_B" in key for name in never) else value
            for key, value in made.tensors.items()
        }
        yield "LORA of zeros where nothing is called", Adapter(made.config, zeros)
    experts = {
        f"{name.rpartition('.')[2]}.{own}"
        for name, one in modules
        for own, shape in one.parameters.items()
        if one.kind is ModuleKind.OTHER and len(shape) == 3
    }
    if experts:
        config = {**lora, "target_modules": [], "target_parameters": sorted(experts)}
        yield from _named("LORA on experts", base, config)
        config["target_parameters"] = [*sorted(experts), "nowhere.weight"]
        yield from _named("LORA on experts, and on nothing", base, config)
    if called:
        norm = next((name for name, one in modules if one.kind is ModuleKind.NORM), None)
        whole = [*never[:1], *([norm] if norm else [])]
        saved = {**lora, "target_modules": called, "modules_to_save": whole}
        yield from _named("LORA with whole modules", base, saved)
        if (made := _made(base, {**lora, "target_modules": called})) is not None:
            name = next(key for key in made.tensors if "lora_A" in key)
            other = {**made.tensors, name: torch.ones(2, 5)}
            yield "LORA of another size", Adapter(made.config, other)
            lacking = {key: value for key, value in made.tensors.items() if key != name}
            yield "LORA in part", Adapter(made.config, lacking)
    lists = [name for name, one in modules if not one.called and one.kind is ModuleKind.OTHER]
    if lists:
        yield from _named("a list", base, {"peft_type": "LN_TUNING", "target_modules": lists[:1]})


def _named(name: str, base: BaseFacts, config: Mapping[str, Any]) -> Iterator[tuple[str, Adapter]]:
    if (made := _made(base, config)) is not None:
        yield name, made


def _places(base: BaseFacts, method: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """The modules that this method can sit on, of those that are called."""
    layout = base.layout
    assert layout is not None
    groups: dict[Any, list[str]] = {}
    for name, module in layout.modules.items():
        holds = module.kind is not ModuleKind.OTHER or module.parameters
        if module.kind in METHODS[method].kinds and module.called and holds:
            sizes = (module.in_features, module.out_features, module.kernel, module.groups)
            groups.setdefault((module.kind, *sizes), []).append(name)
    kinds = {kind for kind, *_ in groups}
    for (kind, *_), names in groups.items():
        if {kind, *kinds} >= {ModuleKind.LINEAR, ModuleKind.CONV1D} and kind is ModuleKind.CONV1D:
            continue  # one adapter has one fan_in_fan_out
        config = {"peft_type": method, "target_modules": names[:1], **fields}
        if _made(base, config) is not None:
            yield from names


def _made(base: BaseFacts, config: Mapping[str, Any]) -> Adapter | None:
    """An adapter of this config with random values; ``None`` where it cannot be created."""
    trained = {**config, "peft_type": "LORA"} if config["peft_type"] == "ADALORA" else config
    beginning, findings = plan_new_adapter(trained, base.config, base.layout)
    if beginning is None or any(one.severity is Severity.ERROR for one in findings):
        return None
    drawn = torch.Generator().manual_seed(0)
    shapes = {name: info.shape for name, info in beginning.header.tensors.items()}
    said = dict(beginning.config)
    if config["peft_type"] == "ADALORA":
        said |= {"peft_type": "ADALORA", "init_r": 2, "target_r": 2, "total_step": 10}
        shapes = {name.removesuffix(".weight"): shape for name, shape in shapes.items()}
        pairs = [name for name in shapes if name.endswith("lora_A")]
        shapes |= {name[:-1] + "E": (2, 1) for name in pairs}
    tensors = {n: torch.randn(shape, generator=drawn) * 0.1 for n, shape in shapes.items()}
    for name in tensors:
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1)
    plain = {name.replace(".base_layer.bias", ".bias"): name for name in tensors}
    for one, other in base.layout.tied.items() if base.layout is not None else ():
        ends = [plain.get(PEFT_PREFIX + end) for end in (one, other)]
        if None not in ends:  # one parameter has one value
            tensors[str(ends[0])] = tensors[str(ends[1])]
    return Adapter(said, tensors)


def _modules(plan: AdapterPlan | None, layout: Layout | None) -> frozenset[str]:
    if plan is None or layout is None:
        return frozenset()
    # of two that share a bias, only the one that adds it is changed
    shared = {layout.tied[f"{m}.bias"] for m in plan.biases if f"{m}.bias" in layout.tied}
    biases = [module for module in plan.biases if f"{module}.bias" not in shared]
    return frozenset((*plan.modules, *plan.saved, *plan.tuned, *biases, *plan.embeddings))
