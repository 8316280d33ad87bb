"""A base's config.json in one form: only what changes the computation, for all versions.

Many transformers versions write different files for the same base: newer ones have more fields,
``rope_theta`` moved into ``rope_parameters``, and some write out derived values (``head_dim``).
:func:`canonical` brings them to one form:

1. Nested dictionaries become dotted paths. Aliases take their class's name
   (``attribute_map``), the rotary fields of every version are under ``rope.``.
2. Fields known not to change what the model computes are left out (:data:`_IGNORED`); an unknown
   field counts.
3. A field whose value is its class's default, or what the class derives from the others for an
   absent one, is left out: for the class, present and absent mean the same.

Digest, version 1: ``v1:sha256:`` and the SHA-256 of ``adapterdock config v1\\n`` followed by one
line ``<path> <JSON value>\\n`` for each field left, sorted by path; numbers are written with nine
significant digits after rounding to float32, integral ones as integers.

Defaults and derivations are data (``baseconfig_v1.json``), exported once from the config classes
of transformers 5.23 and *frozen*: they are part of version 1 of the fingerprint. A new export would
be a new version; the exporter is in the history (``loader/tables/config_defaults.py``). A class
that the table does not know is digested without defaults; a difference there is then *unchecked*
and no error (``Canonical.doubt``).
"""

from __future__ import annotations

import json
import math
import operator
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from ..files.digests import versioned_digest

Fields = dict[str, Any]
Table = Mapping[str, Mapping[str, Any]]

_IGNORED = re.compile(
    # the file itself, and names of other files
    r"_.*|name_or_path|architectures|transformers_version|auto_map|vocab_file|\w+_config_dict"
    r"|tokenizer_class|model_name|license|unsloth_\w+|hub_mixin"
    # how the model is stored and run
    r"|(torch_)?dtype|torchscript|quantization_config|use_bfloat16|pruned_heads"
    r"|(attn|experts)_implementation|cache_implementation|use_cache|pretraining_tp"
    r"|chunk_size_feed_forward|gradient_checkpointing\w*|base_model_\w+_plan"
    # what the model returns
    r"|return_dict|use_return_dict|output_(hidden_states|attentions|scores|past|router_logits)"
    r"|keys_to_ignore_at_inference|out_features|out_indices|stage_names"
    # training: dropout, initial values, loss, masking of the input
    r"|.*dropout.*|.*drop_rate|.*drop_path.*|.*_pdrop|(\w+_)?layerdrop|.*initializer.*"
    r"|\w*init_(std|range|scale|factor|xavier_std|method)|loss_type|\w+_loss_coef|tf_legacy_loss"
    r"|ctc_(loss_reduction|zero_infinity)|apply_spec_augment|mask_(time|feature)_\w+"
    # heads and their labels
    r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params|summary_\w+"
    # the tokenizer's and generate's
    r"|(bos|eos|pad|sep|cls|unk|mask|decoder_start|forced_bos|forced_eos)_token_(ids?|index)"
    r"|model_max_length|(begin_)?suppress_tokens"
    # what the classes derive from other fields, in place
    r"|dense_act_fn|is_gated_act|down_ops|is_composition"
)
"""Fields that do not change what the model computes, at any depth of the config."""

_GENERATION = re.compile(
    r"(max|min)_(length|new_tokens)|do_sample|early_stopping|num_beams|num_beam_groups"
    r"|diversity_penalty|temperature|top_k|top_p|min_p|typical_p|(epsilon|eta)_cutoff"
    r"|(repetition|length)_penalty|(encoder_)?no_repeat_ngram_size|bad_words_ids"
    r"|num_return_sequences|forced_decoder_ids|exponential_decay_length_penalty"
    r"|remove_invalid_values|renormalize_logits|guidance_scale|max_time|penalty_alpha"
    r"|sequence_bias"
)
"""Settings of ``generate`` that older versions kept here; a class may still have such a field."""

_COMMON: Mapping[str, Any] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "tie_encoder_decoder": False,
}
"""Defaults that every class had or has."""

_HEADS = re.compile(
    r"(For[A-Z]\w*|With\w*Head\w*|LMHeadModel|LMHeadsModel|DoubleHeadsModel|HeadModel|Model|Encoder)$"
)
_ROPE = ("rope_scaling", "rope_parameters")
_ROPE_LOCAL = ("rope_local_base_freq", "local_rope_theta")
_ROPE_FLAT = {
    "rope_theta": "rope_theta",
    "rotary_emb_base": "rope_theta",
    "global_rope_theta": "rope_theta",
    "partial_rotary_factor": "partial_rotary_factor",
    "rotary_pct": "partial_rotary_factor",
}
_OLD_NAMES: Mapping[str, Mapping[str, str]] = {"bloom": {"n_embed": "hidden_size"}}
"""Names of fields in old files, which the class still reads."""
_LAYER_TYPES: Mapping[str, str] = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}
"""Old names of layer types, which transformers renames when it reads them."""
_ORIGINAL = "original_max_position_embeddings"
_FULL, _SLIDING = "full_attention", "sliding_attention"


_SIGNS: Mapping[str, Callable[[int, int], int]] = {
    "//": operator.floordiv,
    "*": operator.mul,
    "+": operator.add,
}


@dataclass(frozen=True)
class Canonical:
    """``fields`` by dotted path, without defaults. ``open`` are the fields left that the class may
    derive from others in a way that the table does not have; ``doubt`` says why a difference from
    another file may not mean another base, ``None`` where it does."""

    fields: Mapping[str, Any]
    open: frozenset[str] = frozenset()
    doubt: str | None = None
    inexact: bool = False
    """Whether the doubt is not about single fields."""

    @property
    def digest(self) -> str:
        return digest_of(self.fields)

    def without(self, paths: Iterable[str]) -> str:
        """The digest of the config without these paths."""
        dropped = frozenset(paths)
        return digest_of({k: v for k, v in self.fields.items() if k not in dropped})


def canonical(config: Mapping[str, Any]) -> Canonical:
    """Bring a parsed config.json (or ``PretrainedConfig.to_dict()``) to its canonical form."""
    table = _table()
    fields, opened, unknown = _reduced(config, _model_type(config, table), table)
    doubt = None
    if unknown:
        doubt = f"not all defaults of model type {', '.join(unknown)} are known"
    elif opened:
        doubt = f"{', '.join(sorted(opened))} may be written out or derived from other fields"
    return Canonical(fields, frozenset(opened & fields.keys()), doubt, bool(unknown))


def digest_of(fields: Mapping[str, Any]) -> str:
    lines = [
        f"{path} {json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)}\n"
        for path, value in sorted(fields.items())
    ]
    return versioned_digest("config", "".join(lines).encode())


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Whether the base shares its input and output embeddings, by config.json."""
    table = _table()
    for part in (config, *_parts(config)):
        own = table.get(_model_type(part, table), {})
        if "scale_decoder_outputs" in _names(own):
            return True  # T5's: always tied; what the flag says is whether outputs are scaled
        default = own.get("defaults", {}).get("tie_word_embeddings")
        forced = "tie_word_embeddings" in own.get("ignored", ())
        if default if forced else part.get("tie_word_embeddings", default):
            return True
    return False


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The width of the residual stream (``hidden_size``, ``d_model``, ``n_embd``...), or
    ``None``. Of a model with parts, the text model's."""
    table = _table()
    for part in (config, *_parts(config)):
        own = table.get(_model_type(part, table), {})
        name = own.get("aliases", {}).get("hidden_size", "hidden_size")
        names = _OLD_NAMES.get(_model_type(part, table), {})
        old = [key for key, new in names.items() if new == "hidden_size"]
        for key in (*old, name, "hidden_size", "d_model", "n_embd", "dim", "embed_dim"):
            value = part.get(key, own.get("defaults", {}).get(key))
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def family_of(architecture: str) -> str:
    """``Bert`` of ``BertForMaskedLM``, ``BertLMHeadModel`` and ``BertModel``."""
    return _HEADS.sub("", architecture.removeprefix("FSDP"))


def known_fields(model_type: str) -> frozenset[str] | None:
    """The fields of a model type in the table, ``None`` for an unknown type."""
    row = _table().get(model_type)
    return None if row is None else frozenset(_names(row))


def _model_type(config: Mapping[str, Any], table: Table) -> str:
    """``model_type``; for files of 2019, which do not have it, from the name of the class."""
    named = config.get("model_type")
    classes = config.get("architectures")
    if named or not isinstance(classes, list) or not classes:
        return str(named or "")
    family = family_of(str(cast("list[Any]", classes)[0])).lower()
    return next((kind for kind in table if re.sub("[-_]", "", kind) == family), "")


def _names(row: Mapping[str, Any]) -> set[str]:
    """The top-level fields of one row of the table."""
    groups = ("defaults", "rules", "open", "ignored", "others", "parts")
    return {path.partition(".")[0] for group in groups for path in row.get(group, ())}


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = ("text_config", "llm_config", "language_config", "decoder", "vision_config")
    found = [config.get(name) for name in names]
    return [cast(Mapping[str, Any], part) for part in found if isinstance(part, Mapping)]


@cache
def _table() -> Table:
    text = (Path(__file__).parents[1] / "baseconfig_v1.json").read_text(encoding="utf-8")
    return cast(Table, json.loads(text))


def _reduced(
    config: Mapping[str, Any], model_type: str, table: Table
) -> tuple[Fields, set[str], list[str]]:
    """One config and its parts: fields, open paths, model types that are not in the table."""
    row = table.get(model_type)
    own: Mapping[str, Any] = row if row is not None else {}
    fields, inner, opened = Fields(), Fields(), set[str]()
    unknown = [] if row is not None and not own.get("inexact") else [model_type or "(none)"]
    parts: Mapping[str, str] = own.get("parts", {})
    aliases: Mapping[str, str] = {**own.get("aliases", {}), **_OLD_NAMES.get(model_type, {})}
    config = _with_text_apart(config, own, table)
    for written, value in config.items():
        key = aliases.get(written, written)
        if key != written and key in config:
            continue
        if isinstance(value, Mapping) and (key in parts or "model_type" in value):
            part = cast(Mapping[str, Any], value)
            kind = str(part.get("model_type") or parts.get(key, ""))
            below, opened_below, unknown_below = _reduced(part, kind, table)
            inner |= {f"{key}.{name}": v for name, v in below.items()}
            opened |= {f"{key}.{name}" for name in opened_below}
            unknown += unknown_below
            if kind == parts.get(key):
                inner.pop(f"{key}.model_type", None)
        elif key not in own.get("ignored", ()) and _counts(key, own):
            fields[key] = _respelled(key, value)
    _move_rope(fields, nested=any(k.startswith("rope.full_") for k in own.get("defaults", ())))
    _move_t5(fields, own)
    for key, absent in cast(Mapping[str, Fields], own.get("absent", {})).items():
        if config.get(key) is None:  # the class then has its own default for the part
            inner |= {f"{key}.{name}": value for name, value in absent.items()}
    left, opened_here = _without_defaults(_flat(fields), own)
    left |= inner
    left["model_type"] = model_type
    return left, opened | opened_here, unknown


def _with_text_apart(
    config: Mapping[str, Any], own: Mapping[str, Any], table: Table
) -> Mapping[str, Any]:
    """Qwen2-VL's own files have the text model's fields beside ``vision_config``; its class moves
    them into a ``text_config``."""
    kind = own.get("parts", {}).get("text_config")
    if kind is None or "text_config" in config or "hidden_size" not in config:
        return config
    moved = {*_names(table.get(kind, {})), *_ROPE, *_ROPE_FLAT} - _names(own)
    text = {key: value for key, value in config.items() if key in moved}
    return {k: v for k, v in config.items() if k not in text} | {"text_config": text}


def _counts(key: str, own: Mapping[str, Any]) -> bool:
    if _GENERATION.fullmatch(key) is not None:
        return key in _names(own)
    return _IGNORED.fullmatch(key) is None


def _move_rope(fields: Fields, nested: bool) -> None:
    """Move the rotary fields of every version to ``rope`` (v5's ``rope_parameters``)."""
    rope: Fields = {}
    for key in _ROPE:
        value = fields.pop(key, None)
        if isinstance(value, Mapping):
            rope |= cast(Mapping[str, Any], value)
    deep = {k: dict(cast(Mapping[str, Any], v)) for k, v in rope.items() if isinstance(v, Mapping)}
    if nested and not deep:
        deep, rope = {_FULL: rope}, {}
    flat = {new: fields.pop(old) for old, new in _ROPE_FLAT.items() if old in fields}
    local = [fields.pop(old) for old in _ROPE_LOCAL if old in fields]
    target = deep.setdefault(_FULL, {}) if nested else rope
    for name, value in flat.items():
        if value is not None:
            target.setdefault(name, value)
    if local and local[0] is not None:
        deep.setdefault(_SLIDING, {}).setdefault("rope_theta", local[0])
    for group in (rope, *deep.values()):
        kind = group.pop("type", None)
        if kind is not None:
            group.setdefault("rope_type", kind)
        if group.get("rope_type") in ("default", "mrope"):  # mrope_section says the latter
            del group["rope_type"]
        original = fields.get(_ORIGINAL, fields.get("max_position_embeddings"))
        if original is not None and group.get(_ORIGINAL) == original:
            del group[_ORIGINAL]  # the classes add it here
    if rope or deep:
        fields["rope"] = {**rope, **deep}


def _respelled(key: str, value: Any) -> Any:
    """Values that the classes also read in an older form."""
    if key == "pos_att_type" and isinstance(value, str):  # DeBERTa's own files: "p2c|c2p"
        return [kind.strip() for kind in value.lower().split("|")]
    if not key.endswith("layer_types") or not isinstance(value, list):
        return value
    layers = cast("list[Any]", value)
    return [_LAYER_TYPES.get(kind, kind) if isinstance(kind, str) else kind for kind in layers]


def _move_t5(fields: Fields, own: Mapping[str, Any]) -> None:
    """In T5 v1.1, ``tie_word_embeddings: false`` means that outputs are not scaled."""
    if "scale_decoder_outputs" in _names(own):
        tie = fields.pop("tie_word_embeddings", None)
        fields.setdefault("scale_decoder_outputs", tie is not False)


def _flat(value: Mapping[str, Any], before: str = "") -> Fields:
    found = Fields()
    for key, inner in value.items():
        path = f"{before}{key}"
        if isinstance(inner, Mapping) and "__float__" not in inner:
            found |= _flat(cast(Mapping[str, Any], inner), path + ".")
        else:
            found[path] = inner
    return found


def _without_defaults(fields: Fields, own: Mapping[str, Any]) -> tuple[Fields, set[str]]:
    """The fields without defaults, and the paths that may or may not be written out."""
    defaults: Mapping[str, Any] = {**_COMMON, **own.get("defaults", {})}
    rules = dict(cast(Mapping[str, str], own.get("rules", {})))
    opened = set[str](own.get("open", ()))
    if fields.get("use_sliding_window", defaults.get("use_sliding_window")) is False:
        # files name a window anyway; the classes set it to None
        opened -= {"sliding_window"}
        fields = {
            k: v for k, v in fields.items() if k not in ("sliding_window", "max_window_layers")
        }
    for path, rule in list(rules.items()):
        rules[path], _, flag = rule.partition("?")
        if flag and fields.get(flag, defaults.get(flag)) != defaults.get(flag):
            del rules[path]
            opened.add(path)
    fields = _layers_of_pattern(fields, rules, own)
    left = Fields()
    for path, value in fields.items():
        if value is None and defaults.get(path) is None:
            continue
        if path in rules:
            if _plain(value) == _plain(derived(rules[path], fields, defaults)):
                continue
        elif path in defaults and _plain(value) == _plain(defaults[path]):
            continue
        left[path] = value
    return left, opened


def _layers_of_pattern(fields: Fields, rules: Mapping[str, str], own: Mapping[str, Any]) -> Fields:
    """Gemma's older files have ``sliding_window_pattern`` instead of ``layer_types``."""
    pattern, rule = fields.get("sliding_window_pattern"), rules.get("layer_types", "")
    if pattern is None or ":every:" not in rule or "sliding_window_pattern" in _names(own):
        return fields
    count, kind, _, *rest = rule.split(":")
    layers = derived(":".join((count, kind, str(pattern), *rest)), fields, own.get("defaults", {}))
    fields = {k: v for k, v in fields.items() if k != "sliding_window_pattern"}
    fields.setdefault("layer_types", layers)
    return fields


def derived(rule: str, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The value that a class derives for an absent field: ``a``, ``a//b``, ``a*4``, ``a+b``, or a
    pattern over ``a`` layers: ``a:all:X``, ``a:every:6:X:Y`` (X at each sixth, else Y),
    ``a:first:k:X:Y``."""

    def number(name: str) -> Any:
        return int(name) if name.isdigit() else fields.get(name, defaults.get(name))

    try:
        if ":" in rule:
            count, kind, *rest = rule.split(":")
            layers = range(number(count))
            if kind == "all":
                return [rest[0] for _ in layers]
            each = number(rest[0])
            if kind == "first":
                return [rest[1] if i < each else rest[2] for i in layers]
            return [rest[1] if (i + 1) % each == 0 else rest[2] for i in layers]
        for sign, does in _SIGNS.items():
            left, found, right = rule.partition(sign)
            if found:
                return does(number(left), number(right))
        return number(rule)
    except (TypeError, ZeroDivisionError):
        return None


def _plain(value: Any) -> Any:
    """Numbers as they compare in float32, tuples as lists."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            return format(value, ".9g")
        return int(value) if value.is_integer() and abs(value) < 2**53 else format(value, ".9g")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, Mapping):
        if "__float__" in value:  # how transformers writes Infinity into JSON
            return _plain(float(str(value["__float__"])))
        return {str(k): _plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    return value
