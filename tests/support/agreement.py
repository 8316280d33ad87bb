"""Two verdicts on one adapter: from files alone, and on the live model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.disknames import live_tensors, places_on_disk
from adapterdock.manifests.errors import AdapterdockError
from adapterdock.manifests.findings import Finding, Severity
from adapterdock.registry.architectures import layout_of
from adapterdock.registry.facts import (
    AdapterFacts,
    AdapterPlan,
    BaseFacts,
    Header,
    ModuleKind,
    TensorInfo,
)
from adapterdock.registry.files.zeros import with_zeros
from adapterdock.registry.fit import check_adapter
from adapterdock.registry.fresh import begin
from adapterdock.registry.methods.naming import PEFT_PREFIX
from adapterdock.registry.methods.table import METHODS
from torch import nn

OK, UNCHECKED, REFUSED = "ok", "unchecked", "refused"

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
        infos = {n: TensorInfo("F32", tuple(t.shape), 0, t.nbytes) for n, t in self.tensors.items()}
        return AdapterFacts("it", None, self.config, Header(infos))


def base_facts(model: Any) -> BaseFacts:
    """What the files of this model's checkpoint would say of it."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    places = places_on_disk(model, live_tensors(model))
    tensors = {key: TensorInfo(place.dtype, place.shape) for key, place in places.items()}
    return BaseFacts(None, config, tensors, layout_of(config, tensors))


def from_files(adapter: Adapter, base: BaseFacts) -> Verdict:
    """What ``validate`` says: without torch, but for the values of these very tensors."""
    findings, plan = check_adapter(adapter.facts, base)
    told = with_zeros(
        adapter.facts, plan, base.layout, lambda name: not adapter.tensors[name].any()
    )
    if told.zeros:
        findings, plan = check_adapter(told, base)
    return Verdict.of(findings, _modules(plan))


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
        it = adapted.attached["it"]
        return Verdict(OK, frozenset(it.sites) | frozenset(it.whole))
    finally:
        adapted.detach()


def agree(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts are one: what files cannot tell, the live model may."""
    if one.status == UNCHECKED:
        return True
    return one.status == other.status and one.modules == other.modules


def adapters(base: BaseFacts) -> Iterator[tuple[str, Adapter]]:
    """One adapter of each native method, wherever it can sit, and one where it cannot."""
    for name, fields in FIELDS.items():
        method = name.partition(",")[0]
        if method == "TRAINABLE_TOKENS":
            chosen: list[str] | None = None
        else:
            chosen = [*_places(base, method, fields)]
            if not chosen:
                continue
        if (
            made := _made(base, {"peft_type": method, "target_modules": chosen, **fields})
        ) is not None:
            yield name, made
    for method, fields in VIRTUAL.items():
        for task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
            config = {"peft_type": method, "task_type": task, "num_virtual_tokens": 3, **fields}
            if (made := _made(base, config)) is not None:
                yield f"{method}, {task}", made


def _places(base: BaseFacts, method: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """The modules that this method can sit on, of those that are called."""
    layout = base.layout
    assert layout is not None
    groups: dict[Any, list[str]] = {}
    for name, module in layout.modules.items():
        if module.kind in METHODS[method].kinds and module.called:
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
    """An adapter of this config with random values; ``None`` where it cannot be begun."""
    trained = {**config, "peft_type": "LORA"} if config["peft_type"] == "ADALORA" else config
    beginning, findings = begin(trained, base.config, base.layout)
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
    plain = {name.replace(".base_layer.bias", ".bias"): name for name in tensors}
    for one, other in base.layout.tied.items() if base.layout is not None else ():
        ends = [plain.get(PEFT_PREFIX + end) for end in (one, other)]
        if None not in ends:  # one parameter has one value
            tensors[str(ends[0])] = tensors[str(ends[1])]
    return Adapter(said, tensors)


def _modules(plan: AdapterPlan | None) -> frozenset[str]:
    if plan is None:
        return frozenset()
    return frozenset((*plan.modules, *plan.saved, *plan.tuned, *plan.biases, *plan.embeddings))
