"""The configs with which a class of transformers is built, to find every module it can have.

Each is the default config with one option changed: a flag flipped, a number removed, each kind of
layer in the options that list them, each optional sub-config added. The kinds of layers are found
in the class's source: the strings that it compares its options with.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, cast

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, configuration_utils

from ..base.empty_model import build

Options = dict[str, Any]

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
COMPASS = {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}
DIFFUSION = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8}
EXPERTS = {"shared_expert_intermediate_size": 8}
INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
SHARED = {
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 4,
}
MIXED = {"num_hidden_layers": 2, "mlp_layer_types": ["dense", "sparse"]}
CONVOLUTION = [3, 1, 1]
BLOCK = {
    f"{direction}_{length}ratio": CONVOLUTION
    for direction in (
        "vertical_long_to_small_conv",
        "horizontal_small_to_long_conv",
        "symmetric_conv_long",
    )
    for length in ("long", "mid", "short")
} | {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}

NEEDED: dict[str, Options] = {
    "autoformer": {"prediction_length": 24},
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
    "bridgetower": {"contrastive_hidden_size": 512, "logit_scale_init_value": 2.6},
    "chameleon": {"vocabulary_map": {"<image>": 1}},
    "cohere_compass": {"text_config": COMPASS},
    "cohere_compass_text": COMPASS,
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 8, "clip_qkv": 8}},
    "deepseek_ocr2": {"text_config": MIXED},
    "deepseek_ocr2_text": MIXED,
    "diffusion_gemma": {"text_config": DIFFUSION},
    "diffusion_gemma_text": DIFFUSION,
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 1}},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "gemma4_assistant": {"text_config": SHARED},
    "granite4_vision": {"deepstack_layer_map": [[0, 0], [1, 1]], "downsample_rate": "1/2"},
    "hiera": {"decoder_hidden_size": 8, "decoder_depth": 2, "decoder_num_heads": 2},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "hunyuan_vl_text": {"head_dim": 128},
    "informer": {"prediction_length": 24},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "moshi": {"audio_vocab_size": 2048},
    "nemotron": {"num_key_value_heads": 8},
    "pp_ocrv5_server_det": {"intraclass_block_config": BLOCK},
    "pp_ocrv6_medium_det": {"intraclass_block_config": BLOCK},
    "qwen3_omni_moe": {"talker_config": {"text_config": EXPERTS, "spatial_merge_size": 2}},
    "qwen3_omni_moe_talker_text": EXPERTS,
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "reformer": {"is_decoder": True},
    "sapiens2": {
        "head_config": {
            "upsample_out_channels": [8, 8],
            "conv_out_channels": [8],
            "conv_kernel_sizes": [1],
            "scale_conv_out_channels": [8],
            "scale_conv_kernel_sizes": [1],
            "scale_final_input_size": 8,
            "scale_final_hidden_sizes": [8, 8],
        }
    },
    "time_series_transformer": {"prediction_length": 24},
    "videomae": {"num_frames": 2},
    "vilt": {"num_images": 2},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
}
"""Options without which a class cannot be built, by model type."""

NEEDED_BY_CLASS: dict[str, Options] = {
    "BeitForSemanticSegmentation": {"out_indices": [3, 5, 7, 11]},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
    "PerceiverForImageClassificationConvProcessing": {"num_cross_attention_heads": 1},
    "PerceiverForMultimodalAutoencoding": {"num_cross_attention_heads": 1},
    "PerceiverForOpticalFlow": {"num_cross_attention_heads": 1},
    "ReformerForMaskedLM": {"is_decoder": False},
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
    "EsmForProteinFolding": {"is_folding_model": True, "esmfold_config": {}},
}
"""Further needed options, by class."""

COMBINED: dict[str, tuple[Options, ...]] = {
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
"""Options that do not change the modules."""

USUAL = frozenset({*vars(transformers.PreTrainedConfig()), *RUNTIME})
"""Options of every config; they do not change the modules."""

LAYERS = re.compile(r"layers$|^n_layers?$|depth$")
"""Options with the number of layers."""

STEPS = re.compile(r"first_|dense|sparse|period|offset|interval|every|_step$|freq|_start|_end")
"""Options with numbers that select the kinds of layers."""

CHOSEN = re.compile(r"layer|block|indices|indexes|idx|_ids$")
"""Options with lists of layer numbers."""

ALLOWED = configuration_utils.ALLOWED_LAYER_TYPES
"""Kinds of layers that the configs of most classes may list."""

KINDS = re.compile(r"type|block|pattern|kind|^classes$")
"""Names of options that are compared with a kind of layer."""

MAPPING = "classes"
"""Replaces a mapping from names to classes."""

FEW = 4
"""Layers of a variant; enough for every other one and every third one to be of another kind."""


def needed_by(cls: type[nn.Module]) -> Options:
    """The options without which this class cannot be built."""
    kind = cast(Any, cls).config_class
    return {**NEEDED.get(kind.model_type, {}), **NEEDED_BY_CLASS.get(cls.__name__, {})}


def default_config(cls: type[nn.Module]) -> Any:
    """The config that a class is built with by default. Raises whatever the class raises."""
    return config_with(cls, needed_by(cls))


def config_with(cls: type[nn.Module], options: Options) -> Any:
    """A config with these options, with lists for the tuples in its defaults, as in a config that
    was read from a file."""
    config = cast(Any, cls).config_class(**options)
    for name, value in vars(config).items():
        if isinstance(value, tuple):
            setattr(config, name, list(cast("tuple[Any, ...]", value)))
    return config


def first_built(cls: type[nn.Module], ways: Iterable[Options]) -> nn.Module | None:
    """An instance from the first options that the class accepts; ``None`` where it accepts none."""
    for options in ways:
        try:
            return build(cls, config_with(cls, options))
        except Exception:  # the class rejects these options
            continue
    return None


def few_layers(default: Any) -> Options:
    """The options that reduce a config to few layers."""
    counts = vars(default).items()
    return {n: FEW for n, v in counts if LAYERS.search(n) and _is_count(v) and v > FEW}


def variants(cls: type[nn.Module], default: Any) -> Iterator[tuple[Options, ...]]:
    """Every change of the default config. Each comes as one or more sets of options, of which the
    first that the class accepts is enough."""
    needed = needed_by(cls)
    few = few_layers(default)
    for changes in COMBINED.get(default.model_type, ()):
        yield ({**needed, **changes},)
    if hasattr(default, "add_cross_attention"):
        yield ({**needed, "is_decoder": True, "add_cross_attention": True},)
    yield from sub_config_variants(cls, default)
    for ways in layer_kinds(cls, default):
        yield (*({**needed, **few, **one} for one in ways), *({**needed, **one} for one in ways))
    skipped = USUAL.union(default.sub_configs)
    for name, value in vars(default).items():
        if name.startswith("_") or name in few or name in skipped:
            continue
        for other in _others(name, value):
            yield {**needed, **few, name: other}, {**needed, name: other}


# --- sub-configs -----------------------------------------------------------------------------


def sub_config_variants(cls: type[nn.Module], default: Any) -> Iterator[tuple[Options, ...]]:
    """Each sub-config that the default lacks, alone and all of them together."""
    lacking = missing_sub_configs(default)
    for names in [[one] for one in lacking] + ([lacking] if len(lacking) > 1 else []):
        yield ({**needed_by(cls), **{name: sub_config(default, name) for name in names}},)


def missing_sub_configs(default: Any) -> list[str]:
    """The sub-configs that the default config lacks and that can be made."""
    lacking = [name for name in default.sub_configs if getattr(default, name, None) is None]
    return [name for name in lacking if sub_config(default, name) is not None]


def sub_config(default: Any, name: str) -> Any:
    """A default config for the sub-config ``name``; ``None`` where its class is not known."""
    kind = default.sub_configs[name]
    if kind is not transformers.AutoConfig:
        return kind()
    spec = getattr(default, "sub_configs_defaults", {}).get(name)
    model_type = cast("str | None", getattr(spec, "model_type", None))
    if model_type is None or model_type not in CONFIG_MAPPING:
        return None
    return CONFIG_MAPPING[model_type](**(getattr(spec, "init_kwargs", None) or {}))


# --- kinds of layers -------------------------------------------------------------------------


def layer_kinds(cls: type[nn.Module], default: Any) -> Iterator[tuple[Options, ...]]:
    """Each option that selects the kinds of layers, with each of its values: all layers of this
    kind, or if the class does not accept that, every other one."""
    count = FEW if few_layers(default) else _count(default)
    for name, value in vars(default).items():
        if name.startswith("_") or name in USUAL:
            continue
        wanted = _annotation(type(default), name)
        words = isinstance(value, list | tuple) and value and isinstance(value[0], str)
        if words or (value is None and "list[str]" in wanted):
            now = cast("list[str]", list(value or ()))
            known = {*now, *_words(cls), *_words(type(default))}
            others = [kind for kind in ALLOWED if kind not in known][:2]  # others act like these
            for kind in (*sorted(known), *others):
                if {*now} != {kind}:
                    yield (*_lists(name, kind, now, count),)
        elif isinstance(value, str):
            for kind in sorted(_compared(cls, name) | _compared(type(default), name)):
                if kind != value:
                    yield ({name: kind},)
        elif "list[int]" in wanted and CHOSEN.search(name):
            for some in ([], [0], [1], list(range(count))):
                yield ({name: some},)
        elif _is_count(value) and STEPS.search(name) and not LAYERS.fullmatch(name):
            for number in (0, 1, 2):
                if number != value:
                    yield ({name: number},)


def _lists(name: str, kind: str, now: list[str], count: int) -> Iterator[Options]:
    """Lists in which all entries, or every other one, are ``kind``; one entry per layer."""
    other = next((one for one in now if one != kind), kind)
    for length in dict.fromkeys((count, len(now))):
        if length:
            yield {name: [kind] * length}
            if other != kind:
                yield {name: ([kind, other] * length)[:length]}
                yield {name: ([other, kind] * length)[:length]}


def _count(default: Any) -> int:
    numbers = (v for n, v in vars(default).items() if LAYERS.search(n) and _is_count(v))
    return next(numbers, FEW)


def _annotation(kind: type, name: str) -> str:
    for one in kind.__mro__:
        if name in (said := getattr(one, "__annotations__", {})):
            return str(said[name])
    return ""


@cache
def _comparisons(module: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The strings in each comparison in a module's source, with the name that they are compared
    with; and the keys of mappings to classes."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:
        return ()
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - by its text
        tree = ast.parse(file.read())
    found: list[tuple[str, frozenset[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            texts = {text for side in sides for text in _texts(side)}
            found += [(name, frozenset(texts)) for side in sides for name in _names(side)]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            classes = [key for key, value in pairs if key is not None and _is_class(value)]
            found.append((MAPPING, frozenset(text for key in classes for text in _texts(key))))
    return tuple((name, texts) for name, texts in found if texts)


def _is_class(node: ast.expr) -> bool:
    return any(name[:1].isupper() for name in _names(node))


def _texts(node: ast.expr) -> Iterator[str]:
    inner = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    for one in inner:
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def _names(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id


def _words(cls: type) -> frozenset[str]:
    """The strings that may be a kind of layer: those that a type or block is compared with, and
    the keys of mappings to classes."""
    every = _comparisons(cls.__module__)
    return frozenset(text for name, texts in every if KINDS.search(name) for text in texts)


def _compared(cls: type, name: str) -> frozenset[str]:
    """The strings that the option ``name`` is compared with."""
    every = _comparisons(cls.__module__)
    return frozenset(text for one, texts in every if one == name for text in texts)


# --- single options --------------------------------------------------------------------------


def _others(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if value is None:
        return (8,)
    if not _is_count(value):
        return ()
    if re.search(r"size$|dim$|_dim_|rank$", name):
        return (value // 2, None) if value > 1 else (None,)  # other sizes may add a projection
    if re.search(r"token|vocab|heads$|layers$|position|_id$|index", name):
        return ()  # these numbers do not change the modules
    return (None, 0) if value > 1 else (None, 1 - value, value + 1)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
