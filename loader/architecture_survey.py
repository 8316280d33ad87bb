"""Every model class of the installed transformers, built without memory and described.

The data behind :mod:`adapterdock.loader.architecture_table`: each class is built from its
default config on the ``meta`` device, then again with one option of the config changed at a
time, and split at its sub-models, so that what a class owns is known apart from them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
import transformers
from torch import nn
from torch.nn.utils import parametrize
from transformers import initialization as init
from transformers.models.auto import modeling_auto

from ..registry.facts import ModuleKind
from ..registry.module_tree import BATCH_NORM, KINDS, USUAL
from .layout import output_modules, shape_of_module

LETTERS = {kind: letter for letter, kind in KINDS.items()}

NEEDED: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 24},
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
    "chameleon": {"vocabulary_map": {"<image>": 1}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 8, "clip_qkv": 8}},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 1}},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "hunyuan_vl_text": {"head_dim": 128},
    "informer": {"prediction_length": 24},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "reformer": {"is_decoder": True},
    "time_series_transformer": {"prediction_length": 24},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
}
"""Options without which a class cannot be built, by model type."""

COMBINED: dict[str, tuple[dict[str, Any], ...]] = {
    "deberta": ({"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},),
    "deberta-v2": (
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": False,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
        },
    ),
    "sew-d": ({"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},),
}
"""Options that add modules only together, by model type."""

RUNTIME = ("use_cache", "tie_word_embeddings", "gradient_checkpointing")
"""Options that change no module."""

Path_ = tuple[str, ...]
"""A module's name in pieces, with ``*`` for every number."""


Slot = tuple[str, "str | None", "str | None"]
"""A sub-model's class, where its config lies in the parent's, and the auto class that chose it."""


@dataclass
class Occurrence:
    """One sub-model as it was seen in one instance, without the sub-models inside it.

    ``modules`` are in the order of the model; those of a list's members are merged into it.
    """

    modules: dict[Path_, set[str]] = field(default_factory=dict)
    slots: dict[Path_, Slot] = field(default_factory=dict)
    inside: dict[Path_, Occurrence] = field(default_factory=dict, compare=False)
    config: Any = field(default=None, compare=False)
    tied: Mapping[str, str] | None = field(default=None, compare=False)

    @cached_property
    def present(self) -> frozenset[Path_]:
        """The modules that own or contain a parameter, a buffer or a sub-model."""
        owners = [path for path, words in self.modules.items() if words or path in self.slots]
        return frozenset(path[:n] for path in owners for n in range(len(path) + 1))


@dataclass
class Seen:
    """All that was seen of one class, alone (``own``) or inside others (``inner``)."""

    cls: type[nn.Module]
    config: Any
    output: str | None = None
    own: list[Occurrence] = field(default_factory=list)
    inner: list[Occurrence] = field(default_factory=list)


# --- which classes ---------------------------------------------------------------------------


def model_classes() -> dict[str, type[nn.Module]]:
    """Every model class that the installed transformers offers, by name."""
    found: dict[str, type[nn.Module]] = {}
    for name in sorted(dir(transformers)):
        if name.islower() or name.endswith(("PreTrainedModel", "Config", "Processor")):
            continue
        try:
            value = getattr(transformers, name)
        except (AttributeError, ImportError):  # needs a library that is not here
            continue
        if isinstance(value, type) and issubclass(value, transformers.PreTrainedModel):
            found[name] = value
    return found


def auto_choices() -> dict[str, dict[str, str]]:
    """The class, by model type, that each auto class builds of those with which composite models
    build their parts; the auto classes by name, most used first."""
    names = {
        "AutoModel": "MODEL_MAPPING_NAMES",
        "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        "AutoBackbone": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
        "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
        "AutoModelForTextEncoding": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    }
    out: dict[str, dict[str, str]] = {}
    for auto, name in names.items():
        choices = cast("Mapping[str, str | tuple[str, ...]]", vars(modeling_auto)[name])
        out[auto] = {k: v if isinstance(v, str) else v[0] for k, v in choices.items()}
    return out


# --- one instance ----------------------------------------------------------------------------


def build(cls: type[nn.Module], config: Any) -> nn.Module:
    """An instance without memory. Raises whatever the class raises for this config."""
    with torch.device("meta"), init.no_init_weights(), init.meta_device_safe_creation_ops():
        return cls(config)


def describe(module: nn.Module) -> set[str]:
    """What a module owns, as words; ``set()`` for a container.

    ``2``: a weight of so many dimensions, of the usual kind for them (1: norm, 2: linear, 3 to
    5: convolution). ``2E``, ``2T``, ``3O``..: of another kind (a letter of ``KINDS``).
    ``C=*`` and ``C=16``: groups of a convolution (``*``: depthwise). ``+name`` a parameter that
    is not ``weight`` or ``bias``, ``-name`` a persistent buffer.
    """
    words: set[str] = set()
    shape = shape_of_module(module)
    weight = shape.parameters.get("weight")
    if weight is None and parametrize.is_parametrized(module, "weight"):
        weight = tuple(cast(torch.Tensor, module.weight).shape)
    if weight is not None:
        letter = LETTERS[shape.kind]
        words.add(f"{len(weight)}{'' if USUAL.get(len(weight)) == letter else letter}")
        if shape.groups != 1:
            depthwise = shape.groups == shape.in_features == shape.out_features
            words.add(f"C={'*' if depthwise else shape.groups}")
        elif shape.kind is ModuleKind.CONV:
            words.add("C=1")
    elif "bias" in shape.parameters:
        words.add("+bias")
    words |= {f"+{_starred(n)}" for n in shape.parameters if n not in ("weight", "bias")}
    passing = cast("set[str]", getattr(module, "_non_persistent_buffers_set"))  # noqa: B009
    buffers = {name for name, _ in module.named_buffers(recurse=False)} - passing - BATCH_NORM
    words |= {f"-{_starred(name)}" for name in buffers}
    return words


def _starred(piece: str) -> str:
    return "*" if piece.isdigit() else piece


def occurrences(model: nn.Module) -> Iterator[tuple[nn.Module, Occurrence]]:
    """Every sub-model of ``model``, itself first, each described without those inside it."""
    pending = [(model, Occurrence())]
    for root, seen in pending:
        seen.config, seen.tied = cast(Any, root).config, cast(Any, root)._tied_weights_keys
        order: list[Path_] = []
        words: dict[Path_, set[str]] = {}
        before: Path_ | None = None
        for path, module in _walk(root, ()):
            if path not in words:
                order.insert(order.index(before) + 1 if before is not None else 0, path)
                words[path] = set()
            before = path
            if isinstance(module, transformers.PreTrainedModel) and module is not root:
                seen.slots.setdefault(path, (type(module).__name__, *_config_path(root, module)))
                pending.append((module, seen.inside.setdefault(path, Occurrence())))
            else:
                words[path] |= describe(module)
        seen.modules = {path: words[path] for path in order}
        yield root, seen


def _walk(module: nn.Module, path: Path_) -> Iterator[tuple[Path_, nn.Module]]:
    yield path, module
    for name, child in module.named_children():
        below = (*path, _starred(name))
        if isinstance(child, transformers.PreTrainedModel):
            yield below, child
        else:
            yield from _walk(child, below)


def _config_path(parent: nn.Module, child: nn.Module) -> tuple[str | None, str | None]:
    """Where in the parent's config the child's lies, and the auto class that chose its class.

    ``""`` is the parent's own; ``None`` that it is not known.
    """
    outer, inner = cast(Any, parent).config, cast(Any, child).config
    parts = {name: getattr(outer, name, None) for name in outer.sub_configs}
    name = next((n for n, part in parts.items() if part is inner), None)
    if name is None and inner is not outer:
        same = [n for n, part in parts.items() if type(part) is type(inner)]
        name = same[0] if len(same) == 1 else None
    if name is None:
        return ("" if type(inner) is type(outer) else None), None
    if outer.sub_configs[name] is not transformers.AutoConfig:
        return name, None
    for auto, choices in auto_choices().items():
        if choices.get(inner.model_type) == type(child).__name__:
            return name, auto
    return name, "?"  # by another way: only its default class is known


# --- many instances --------------------------------------------------------------------------


def survey(classes: Mapping[str, type[nn.Module]]) -> dict[str, Seen]:
    """Build every class, from its default config and with each option of it changed."""
    seen: dict[str, Seen] = {}
    for number, cls in enumerate(classes.values(), 1):
        if number % 100 == 0:
            print(f"{number} of {len(classes)} classes", file=sys.stderr, flush=True)
        try:
            kind = cast(Any, cls).config_class
            needed = NEEDED.get(kind.model_type, {})
            config = kind(**needed)
            model = build(cls, config)
        except Exception:  # needs an option or a library that is not here: left to `unchecked`
            continue
        _record(seen, model)
        if _is_head(seen[cls.__name__].own[0], classes):
            continue
        for variant in _variants(kind, config, needed):
            try:
                _record(seen, build(cls, variant))
            except Exception:  # the class refuses this option
                continue
    return seen


def _is_head(occurrence: Occurrence, classes: Mapping[str, object]) -> bool:
    """Whether a class only puts a few layers on models that are surveyed by themselves."""
    inner = [name for name, *_ in occurrence.slots.values()]
    few = sum(map(bool, occurrence.modules.values())) <= 4
    return few and bool(inner) and all(name in classes for name in inner)


def _record(seen: dict[str, Seen], model: nn.Module) -> None:
    for module, occurrence in occurrences(model):
        name = type(module).__name__
        row = seen.setdefault(name, Seen(type(module), cast(Any, module).config))
        if row.cls is not type(module):
            raise RuntimeError(f"two classes are named {name}")
        known = row.own if module is model else row.inner
        if occurrence not in known:
            known.append(occurrence)
        if module is model:
            row.output = row.output or output_of(model)


def output_of(model: nn.Module) -> str | None:
    """The first module that PEFT's ``all-linear`` would leave out."""
    return min(output_modules(model), default=None)


def _variants(kind: Callable[..., Any], default: Any, needed: Mapping[str, Any]) -> Iterator[Any]:
    """The default config with fewer layers, and one option changed."""
    for changes in COMBINED.get(default.model_type, ()):
        yield kind(**{**needed, **changes})
    if hasattr(default, "add_cross_attention"):
        yield kind(**{**needed, "is_decoder": True, "add_cross_attention": True})
    skipped = {*vars(transformers.PreTrainedConfig()), *default.sub_configs, *RUNTIME}
    few: dict[str, Any] = {}
    for name, value in vars(default).items():
        if re.search(r"layers$|^n_layers?$|depth$", name) and _is_count(value) and value > 4:
            few[name] = 4
    for name, value in vars(default).items():
        if name.startswith("_") or name in few or name in skipped:
            continue
        for other in _others(name, value):
            for changes in ({**needed, **few, name: other}, {**needed, name: other}):
                try:
                    yield kind(**changes)
                    break
                except Exception:  # an option that cannot stand beside the others
                    continue


def _others(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if value is None:
        return (8,)
    if not _is_count(value):
        return ()
    if re.search(r"size$|dim$|_dim_|rank$", name):
        return (value // 2, None) if value > 1 else (None,)  # a projection, where sizes differ
    if re.search(r"token|vocab|heads$|layers$|position|_id$|index", name):
        return ()  # no such number decides which modules there are
    return (None, 0) if value > 1 else (None, 1 - value, value + 1)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
