"""Export transformers' architectures as the data that :mod:`adapterdock.registry.architectures`
replays without torch.

``python -m adapterdock.loader.architecture_table`` writes ``registry/architectures.json`` for the
installed transformers; with ``--check`` it writes nothing and fails if the file is not current.

Every class that an auto class of transformers can load is built from its default config on the
``meta`` device, then again with one option of the config changed at a time, and split at its
sub-models (each of which is a row of its own):

- ``conversions``: transformers' checkpoint conversions, by class or model type;
- ``rows``: by class, ``type`` (model type), ``prefix``, ``modules`` (a tree: see
  :func:`describe`), ``tied``, ``tie`` (how the config's ``tie_word_embeddings`` comes out),
  ``output`` and ``ignored`` (names in a checkpoint that the class drops);
- ``auto``: which class an auto class builds for a model type, for sub-models that may vary.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import conversion_mapping
from transformers import initialization as init
from transformers.models.auto import modeling_auto

from ..registry.architectures import BATCH_NORM, KINDS, USUAL
from ..registry.facts import ModuleKind
from .layout import output_modules, shape_of_module

TABLE = Path(__file__).resolve().parent.parent / "registry" / "architectures.json"

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

Path_ = tuple[str, ...]
"""A module's name in pieces, with ``*`` for every number."""


Slot = tuple[str, "str | None", "str | None"]
"""A sub-model's class, where its config lies in the parent's, and the auto class that chose it."""


@dataclass
class Occurrence:
    """One sub-model as it was seen in one instance, without the sub-models inside it."""

    modules: dict[Path_, set[str]] = field(default_factory=dict)
    slots: dict[Path_, Slot] = field(default_factory=dict)
    inside: dict[Path_, Occurrence] = field(default_factory=dict, compare=False)


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
    """Every model class that some auto class of the installed transformers can load, by name."""
    found: dict[str, type[nn.Module]] = {}
    for name in sorted(vars(modeling_auto)):
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            for value in cast("Mapping[str, Any]", vars(modeling_auto)[name]).values():
                for cls in (value,) if isinstance(value, str) else value:
                    try:
                        found.setdefault(cls, getattr(transformers, cls))
                    except (AttributeError, ImportError):
                        continue
    return {name: found[name] for name in sorted(found)}


def auto_mappings() -> dict[str, Any]:
    """The auto classes that composite models build their parts with, by name, best first."""
    names = {
        "AutoModel": "MODEL_MAPPING",
        "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
        "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
        "AutoBackbone": "MODEL_FOR_BACKBONE_MAPPING",
        "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        "AutoModelForTextEncoding": "MODEL_FOR_TEXT_ENCODING_MAPPING",
    }
    return {name: getattr(modeling_auto, mapping) for name, mapping in names.items()}


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
    if weight is None and shape.kind is ModuleKind.CONV:
        weight = (shape.out_features, 0, *shape.kernel)  # a parametrised (weight-normed) one
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
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            words |= {f"-{_starred(name)}"} - {f"-{one}" for one in BATCH_NORM}
    return words


def _starred(piece: str) -> str:
    return "*" if piece.isdigit() else piece


def occurrences(model: nn.Module) -> Iterator[tuple[nn.Module, Occurrence]]:
    """Every sub-model of ``model``, itself first, each described without those inside it."""
    pending = [(model, Occurrence())]
    for root, seen in pending:
        for path, module in _walk(root, ()):
            seen.modules.setdefault(path, set())
            if isinstance(module, transformers.PreTrainedModel) and module is not root:
                seen.slots.setdefault(path, (type(module).__name__, *_config_path(root, module)))
                pending.append((module, seen.inside.setdefault(path, Occurrence())))
            else:
                seen.modules[path] |= describe(module)
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
    for auto, mapping in auto_mappings().items():
        if type(inner) in mapping and mapping[type(inner)] is type(child):
            return name, auto
    return name, "?"  # by another way: only its default class is known


# --- many instances --------------------------------------------------------------------------


def survey(classes: Mapping[str, type[nn.Module]]) -> dict[str, Seen]:
    """Build every class, from its default config and with each option of it changed."""
    seen: dict[str, Seen] = {}
    for cls in classes.values():
        try:
            kind = cast(Any, cls).config_class
            needed = NEEDED.get(kind.model_type, {})
            config = kind(**needed)
            model = build(cls, config)
        except Exception:  # needs an option or a library that is not here: left to `unchecked`
            continue
        _record(seen, model)
        for variant in _variants(kind, config, needed):
            try:
                _record(seen, build(cls, variant))
            except Exception:  # the class refuses this option
                continue
    return seen


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
            row.config, row.output = row.config if row.own[1:] else module.config, output_of(model)


def output_of(model: nn.Module) -> str | None:
    """The first module that PEFT's ``all-linear`` would leave out."""
    return min(output_modules(model), default=None)


def _variants(
    kind: Callable[..., Any], default: Any, needed: Mapping[str, Any]
) -> Iterator[Any]:
    """The default config with fewer layers, and one option changed."""
    few: dict[str, Any] = {}
    for name, value in vars(default).items():
        if re.search(r"layers$|^n_layers?$|depth$", name) and _is_count(value) and value > 4:
            few[name] = 4
    for name, value in vars(default).items():
        if name.startswith("_") or name in few or name in default.sub_configs:
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
    if _is_count(value) and not re.search(r"token|size|vocab|dim|heads$|layers$|position", name):
        return (None, 0, value + 1)
    return ()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# --- rows ------------------------------------------------------------------------------------


def rows_of(seen: Mapping[str, Seen]) -> dict[str, dict[str, Any]]:
    """The table's rows, by class name."""
    ties: dict[type, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(seen):
        row = seen[name]
        cls, kind = cast(Any, row.cls), type(row.config)
        out: dict[str, Any] = {"type": row.config.model_type, "modules": _tree(row, seen)}
        if cls.base_model_prefix:
            out["prefix"] = cls.base_model_prefix
        if cls._tied_weights_keys:
            out["tied"] = dict(cls._tied_weights_keys)
            out["tie"] = ties.setdefault(kind, tie_states(kind, row.config))
        if row.output:
            out["output"] = row.output
        if cls._keys_to_ignore_on_load_unexpected:
            out["ignored"] = sorted(cls._keys_to_ignore_on_load_unexpected)
        rows[name] = out
    return rows


def _tree(row: Seen, seen: Mapping[str, Seen]) -> dict[str, Any]:
    every = [*row.own, *row.inner]
    standard = row.own or row.inner
    words: dict[Path_, set[str]] = {}
    slots: dict[Path_, Any] = {}
    for one in every:
        for path, described in one.modules.items():
            words.setdefault(path, set()).update(described)
        for path, slot in one.slots.items():
            slots.setdefault(path, slot)
    for described in words.values():
        if {word for word in described if word[0] == "C"} == {"C=1"}:
            described.discard("C=1")  # the usual: not written
    tree: dict[str, Any] = {}
    for path in words:
        if path in slots and words[path]:
            raise RuntimeError(f"{row.cls.__name__}: {'.'.join(path)} is a model and is not")
        if path in slots:
            value: Any = [*slots[path], *_absent(path, slots[path][0], every, seen)]
        else:
            value = " ".join(sorted(_groups(word, row.config) for word in words[path]))
        if value:
            _place(tree, path, value, standard)
    return _short(tree)


def _short(tree: dict[str, Any]) -> dict[str, Any]:
    """A module that contains no other is written as its words alone."""
    return {
        key: (value.get("") if value.keys() == {""} else _short(value))
        if isinstance(value, dict)
        else value
        for key, value in tree.items()
    }


def _place(tree: dict[str, Any], path: Path_, value: Any, standard: list[Occurrence]) -> None:
    """Put ``value`` at ``path``; a piece that some config does without is written ``?piece``."""
    node = tree
    for depth, piece in enumerate(path, 1):
        above = path[:depth]
        optional = "*" not in above and any(
            above not in one.modules for one in standard
        )
        node = node.setdefault(f"?{piece}" if optional else piece, {})
    if isinstance(value, list):
        node["@"] = value
    else:
        node[""] = value


def _absent(
    path: Path_, name: str, parents: list[Occurrence], seen: Mapping[str, Seen]
) -> Iterator[str]:
    """What this parent's sub-model never has (``-pooler``) or not always (``?pooler``), of the
    modules that its class has by default."""
    here = [one.inside[path] for one in parents if path in one.inside]
    usual = (seen[name].own or seen[name].inner)[0]
    gone: set[Path_] = set()
    for inner in usual.modules:
        if "*" in inner or any(inner[:n] in gone for n in range(len(inner))):
            continue
        absent = [inner not in one.modules for one in here]
        if any(absent):
            gone.add(inner)
            yield ("-" if all(absent) else "?") + ".".join(inner)


def _groups(word: str, config: Any) -> str:
    """Name the config's field where the number of groups comes from one."""
    if not word.startswith("C=") or word in ("C=*", "C=1"):
        return word
    names = [n for n, v in vars(config).items() if "group" in n and v == int(word[2:])]
    return f"C={names[0]}:{word[2:]}" if len(names) == 1 else word


def tie_states(kind: Callable[..., Any], default: Any) -> str:
    """Whether a config ties its embeddings, as nine (without a text config three) digits.

    Digit ``3 * text + own``: 0 where ``tie_word_embeddings`` is not given, 1 for false, 2 true.
    """
    text = getattr(default, "text_config", None) if "text_config" in default.sub_configs else None
    digits = ""
    for inner in (None, False, True) if text is not None else (None,):
        for own in (None, False, True):
            options: dict[str, Any] = {} if own is None else {"tie_word_embeddings": own}
            if inner is not None:
                options["text_config"] = {
                    "model_type": cast(Any, text).model_type,
                    "tie_word_embeddings": inner,
                }
            try:
                tied = getattr(kind(**options), "tie_word_embeddings", False)
            except Exception:  # options that cannot be given apart from others
                tied = getattr(default, "tie_word_embeddings", False)
            digits += str(int(bool(tied)))
    return digits


# --- conversions -----------------------------------------------------------------------------


def conversions() -> dict[str, Any]:
    """transformers' checkpoint conversions by class or model type; a text names another key."""
    table = conversion_mapping._build_checkpoint_conversion_mapping()
    out: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key in sorted(table):
        value = [transform(one) for one in table[key]]
        source = first.setdefault(json.dumps(value), key)
        out[key] = value if source == key else source
    return out


def transform(one: Any) -> list[Any] | dict[str, Any]:
    """A plain renaming as ``[regex, replacement]``, any other as a mapping."""
    match = one.compiled_sources.pattern
    if isinstance(one, conversion_mapping.GroupWeightRename):
        return {"match": match, "to": list(one.target_patterns), "guarded": True}
    if isinstance(one, conversion_mapping.Inkling2IndexOffsetWeightRename):
        return {"match": match, "to": [one.target_patterns[0]], "offset": one.offset}
    if isinstance(one, conversion_mapping.WeightConverter):
        return {
            "match": match,
            "from": list(one.source_patterns),
            "to": list(one.target_patterns),
            "do": [[type(op).__name__, *_arguments(op)] for op in one.operations],
        }
    return [match, one.target_patterns[0]]


def _arguments(operation: Any) -> list[Any]:
    """What an operation's effect on shapes depends on, in a fixed order."""
    names = ("dim", "dim0", "dim1", "check_dims", "stack_dim", "concat_dim")
    values = [getattr(operation, name) for name in names if hasattr(operation, name)]
    shards = getattr(operation, "num_shards_attribute", None)
    return [*values, shards] if shards and type(operation).__name__ == "Chunk" else values


# --- the file --------------------------------------------------------------------------------


def table() -> dict[str, Any]:
    """The whole table for the installed transformers."""
    rows = rows_of(survey(model_classes()))
    used = {name for row in rows.values() for name in _autos(row["modules"])}
    auto = {
        name: {kind.model_type: cls.__name__ for kind, cls in _items(mapping)}
        for name, mapping in auto_mappings().items()
        if name in used
    }
    return {
        "transformers": transformers.__version__,
        "conversions": conversions(),
        "auto": {name: {k: v for k, v in auto[name].items() if v in rows} for name in auto},
        "rows": rows,
    }


def _items(mapping: Any) -> Iterator[tuple[Any, Any]]:
    for kind in mapping:
        try:
            value = mapping[kind]
        except (AttributeError, ImportError, ValueError):
            continue
        yield kind, value[0] if isinstance(value, tuple) else value


def _autos(tree: Mapping[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        if key == "@" and value[2]:
            yield value[2]
        elif isinstance(value, dict):
            yield from _autos(cast("Mapping[str, Any]", value))
