"""What an adapter asks of an engine, from its config, its plan, and the base. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...registry.base.packed import quantisation_of
from ...registry.files.facts import (
    TARGET,
    AdapterFacts,
    AdapterPlan,
    BaseFacts,
    Layout,
    ModuleKind,
    SitePlan,
)
from ...registry.files.names import ADAPTER_WEIGHTS, PEFT_PREFIX
from ...registry.files.wording import shown, some
from ...registry.methods.lora_config import PLAIN_INITS
from ...registry.methods.lora_parameters import NAME as PARAMETER
from ...registry.methods.naming import WRAPPER
from .engine import Feature, Need

LORA = "LORA"
_FACTORS = frozenset({"A", "B", "embedding_A", "embedding_B"})
_CLASSIFIER = "ForSequenceClassification"
_TOWERS = ("vision_config", "audio_config")
"""Keys of a base's config that has more than a language model."""
_LANGUAGE = frozenset({"language_model", "text_model", "lm_head"})
_KEY = re.compile(
    r".+\.(lora_[AB]\.weight|lora_embedding_[AB]|(score|classifier)\.(weight|bias))\Z", re.DOTALL
)
"""The names of tensors that vLLM reads (``parse_fine_tuned_lora_name``); PEFT writes them so."""
_REQUIRED = ("r", "lora_alpha", "target_modules")
"""Fields that vLLM and SGLang have no default for."""
_FIELDS: Mapping[str, Feature] = {
    "use_dora": Feature.DORA,
    "lora_bias": Feature.LORA_BIAS,
    "alora_invocation_tokens": Feature.ALORA,
    "use_bdlora": Feature.BDLORA,
    "use_qalora": Feature.QALORA,
    "velora_config": Feature.VELORA,
    "layer_replication": Feature.REPLICATION,
    "trainable_token_indices": Feature.TOKENS,
    "target_parameters": Feature.PARAMETERS,
    "use_rslora": Feature.RSLORA,
}
_ROLES: Mapping[str, Feature] = {
    "magnitude": Feature.DORA,
    "B_bias": Feature.LORA_BIAS,
    "velora": Feature.VELORA,
    "rows": Feature.TOKENS,
}
_KEYS_OF = frozenset(
    {
        *(Feature.DORA, Feature.LORA_BIAS, Feature.VELORA, Feature.TOKENS, Feature.BIAS),
        *(Feature.SAVED, Feature.HEAD, Feature.STORED),
    }
)
"""Features whose tensors have names of their own."""


@dataclass(frozen=True)
class Asked:
    """One adapter of LoRA on its base, as far as it is known."""

    facts: AdapterFacts
    plan: AdapterPlan
    layout: Layout | None = None
    base: BaseFacts | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        return self.facts.config

    @property
    def sites(self) -> tuple[SitePlan, ...]:
        """The modules with factors of plain LoRA."""
        return tuple(s for s in self.plan.sites if s.method == LORA and s.tensors.keys() & _FACTORS)

    @property
    def heads(self) -> frozenset[str]:
        """Last names of the modules that are replaced."""
        said = self.config.get("modules_to_save") or ()
        names = {module.rpartition(".")[2] for module in self.plan.saved}
        return frozenset({*names, *([said] if isinstance(said, str) else said)})

    @property
    def may_classify(self) -> bool:
        """Whether the base is loaded with a head for sequence classification, or not known."""
        if self.base is None:
            return True
        loaded = self.base.loaded_as
        name = loaded.architecture if loaded is not None else None
        return (name or self.base.architecture or "").endswith(_CLASSIFIER)


def needs_of(asked: Asked) -> tuple[Need, ...]:
    """Everything that the adapter asks for besides plain LoRA on linear modules, each once."""
    found = dict.fromkeys(
        (*_in_config(asked), *_in_plan(asked), *_in_names(asked), *_in_files(asked))
    )
    if any(need.feature in _KEYS_OF for need in found):  # whose keys are not news
        found.pop(Need(Feature.KEYS), None)
    return tuple(found)


def base_needs(base: BaseFacts | None) -> tuple[Need, ...]:
    """What the base asks for, whatever the adapter is."""
    if base is None:
        return ()
    found: list[Need] = []
    if quantised := quantisation_of(base.config):
        method = str(quantised.get("quant_method", "unknown"))
        found.append(Need(Feature.QUANTISED, f"quant_method: {shown(method, 40)}"))
    loaded = base.loaded_as
    if loaded is not None and loaded.vocab_size is not None:
        found.append(Need(Feature.VOCABULARY, f"vocab_size: {loaded.vocab_size}"))
    if loaded is not None and loaded.architecture not in (None, base.architecture):
        found.append(Need(Feature.CLASS, f"{loaded.architecture}"))
    elif loaded is not None and loaded.new:
        found.append(Need(Feature.CLASS, f"a new {some(loaded.new)}"))
    return tuple(found)


def _in_config(asked: Asked) -> Iterator[Need]:
    config = asked.config
    for name, feature in _FIELDS.items():
        if config.get(name):
            yield Need(feature, f"{name}: {shown(str(config[name]), 60)}")
    if config.get("bias") not in (None, "none"):
        yield Need(Feature.BIAS, f"bias: {shown(str(config['bias']), 40)}")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        yield Need(Feature.INIT, f"init_lora_weights: {shown(init, 40)}")
    targets = config.get("target_modules")
    if isinstance(targets, str) and targets not in ("all-linear", "all"):
        yield Need(Feature.PATTERN, shown(targets, 60))
    if asked.heads:
        head = asked.may_classify and asked.heads <= {"classifier", "score"}
        yield Need(Feature.HEAD if head else Feature.SAVED, some(sorted(asked.heads)))
    if absent := [name for name in _REQUIRED if name not in config]:
        yield Need(Feature.FIELDS, f"without {', '.join(absent)}")


def _in_plan(asked: Asked) -> Iterator[Need]:
    plan = asked.plan
    for site in plan.sites:
        for role in site.tensors.keys() & _ROLES.keys():
            yield Need(_ROLES[role], site.module)
        if site.method == PARAMETER or "parameter" in site.settings:
            yield Need(Feature.PARAMETERS, site.module)
        elif TARGET in site.settings:
            yield Need(Feature.KIND, site.module)
        if "experts" in site.module.split("."):
            yield Need(Feature.EXPERTS, site.module)
    if plan.biases:
        yield Need(Feature.BIAS, some(plan.biases))
    # a complete copy of an embedding whose factors are adapted is frozen: PEFT calls it base_layer
    if stored := [m for m, key in plan.embeddings.items() if f".{WRAPPER}." not in key]:
        yield Need(Feature.STORED, some(stored))
    yield from _numbers(asked)
    yield from _kinds(asked)
    if plan.conversion is not None:
        yield Need(Feature.OLDER, next(iter(asked.facts.header.tensors), ""))


def _numbers(asked: Asked) -> Iterator[Need]:
    """Ranks and scales that are not those of the complete adapter."""
    rank, alpha = asked.config.get("r", 8), asked.config.get("lora_alpha", 8)
    for site in asked.sites:
        if site.rank != rank:
            yield Need(Feature.RANKS, f"{site.module} has rank {site.rank}, r is {rank}")
        if site.alpha != alpha:
            yield Need(Feature.SCALES, f"{site.module} has alpha {site.alpha:g}")


def feature_of(asked: Asked, site: SitePlan) -> Feature | None:
    """What the kind of a site's module asks for; ``None`` for a linear layer of the backbone."""
    layout = asked.layout
    shape = layout.modules.get(site.module) if layout is not None else None
    outputs = layout.output_modules if layout is not None else frozenset[str]()
    if "embedding_A" in site.tensors or (shape and shape.kind is ModuleKind.EMBEDDING):
        return Feature.EMBEDDING
    if site.module in outputs or site.module == "lm_head":
        return Feature.OUTPUT
    if shape is not None and shape.kind not in (ModuleKind.LINEAR, ModuleKind.CONV1D):
        return Feature.KIND
    return None


def _kinds(asked: Asked) -> Iterator[Need]:
    layout = asked.layout
    modules = layout.modules if layout is not None else {}
    config = asked.base.config if asked.base is not None else {}
    towers = any(isinstance(config.get(key), dict) for key in _TOWERS)
    text = towers and any(_LANGUAGE & {*module.split(".")} for module in modules)
    pairs = layout.tied.items() if layout is not None else ()
    tied = {name.rpartition(".")[0] for pair in pairs for name in pair}
    for site in asked.sites:
        feature = feature_of(asked, site)
        if feature is not None:
            yield Need(feature, site.module)
        if feature is Feature.OUTPUT and site.module in tied:
            yield Need(Feature.TIED, site.module)
        if text and not _LANGUAGE & {*site.module.split(".")}:
            yield Need(Feature.TOWER, site.module)
        if asked.config.get("ensure_weight_tying") and site.module in tied:
            yield Need(Feature.TYING, site.module)
    yield from _attention(site.module for site in asked.sites)


def _attention(modules: Iterable[str]) -> Iterator[Need]:
    """Layers where q_proj is adapted without v_proj, or one of the others without q_proj."""
    found: dict[str, set[str]] = {}
    for module in modules:
        layer, _, last = module.rpartition(".")
        if last in ("q_proj", "k_proj", "v_proj"):
            found.setdefault(layer, set()).add(last)
    for layer, names in found.items():
        if not {"q_proj", "v_proj"} <= names:
            yield Need(Feature.QKV, f"{layer}: {', '.join(sorted(names))}")


def _in_names(asked: Asked) -> Iterator[Need]:
    """Names of the file that are not those of the base, and keys that are not PEFT's."""
    names = {part.name for part in asked.facts.parts.values()} or asked.facts.header.tensors
    odd = [name for name in names if not _is_key(name)]
    if odd:
        yield Need(Feature.KEYS, some(sorted(odd)))
    if bare := [name for name in names if not name.startswith(PEFT_PREFIX)]:
        yield Need(Feature.PREFIX, some(sorted(bare)))
    if asked.layout is None or asked.plan.conversion is not None:
        return
    for site in asked.sites:
        for key in site.tensors.values():
            if not key.removeprefix(PEFT_PREFIX).startswith(f"{site.module}."):
                yield Need(Feature.NAMES, key)
                break


def _is_key(name: str) -> bool:
    return bool(_KEY.match(name)) or name.endswith(
        (f".embed_tokens.{WRAPPER}.weight", f".lm_head.{WRAPPER}.weight")
    )


def _in_files(asked: Asked) -> Iterator[Need]:
    facts = asked.facts
    if facts.source is None and not facts.headers:
        yield Need(Feature.NEW, facts.name)
        return
    if facts.origin is not None:
        yield Need(Feature.FILES, f"written by {facts.origin.format}")
    elif facts.headers and set(facts.headers) != {ADAPTER_WEIGHTS}:
        yield Need(Feature.FILES, some(sorted(facts.headers)))
