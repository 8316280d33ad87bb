"""Small adapters and bases, written from code and without torch.

Tensors are given as ``(dtype, shape)``; their values are zeros, or seeded and small. Every base
here loads with transformers, and every adapter with PEFT.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterdock.registry.files.facts import (
    AdapterFacts,
    BaseFacts,
    Layout,
    ModuleKind,
    ModuleShape,
)
from adapterdock.registry.files.header import DTYPE_BITS, parse_header

Spec = tuple[str, tuple[int, ...]]
"""A tensor to be: (safetensors dtype, shape)."""

HIDDEN, INNER, VOCAB, LAYERS, HEADS, POSITIONS = 16, 32, 64, 2, 2, 32
KV = HIDDEN // HEADS  # one key-value head


def safetensors_bytes(
    tensors: Mapping[str, Spec],
    seed: int | None = None,
    metadata: Mapping[str, str] | None = None,
    overrides: Mapping[str, bytes] | None = None,
) -> bytes:
    """A whole safetensors file. ``seed`` gives floats near zero, none gives zeros; ``overrides``
    are the raw bytes of single tensors."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    body = bytearray()
    for name, (dtype, shape) in sorted(tensors.items()):
        count = 1
        for length in shape:
            count *= length
        data = (overrides or {}).get(name) or tensor_bytes(dtype, count, name, seed)
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def tensor_bytes(dtype: str, count: int, name: str = "", seed: int | None = None) -> bytes:
    """``count`` elements: zeros, or for a float dtype with a seed values within +-0.1 that differ
    from tensor to tensor."""
    size = DTYPE_BITS[dtype] * count // 8
    if seed is None or dtype not in ("F32", "F16", "BF16", "F64"):
        return bytes(size)
    values = random.Random(f"{seed}/{name}")
    floats = [values.uniform(-0.1, 0.1) for _ in range(count)]
    if dtype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in floats)
    return struct.pack(f"<{count}{ {'F32': 'f', 'F16': 'e', 'F64': 'd'}[dtype] }", *floats)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Spec],
    seed: int | None = None,
    metadata: Mapping[str, str] | None = None,
    overrides: Mapping[str, bytes] | None = None,
) -> Path:
    """:func:`safetensors_bytes` into ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(tensors, seed, metadata, overrides))
    return path


def lora_config(**fields: Any) -> dict[str, Any]:
    """An ``adapter_config.json`` as PEFT 0.21 writes it; ``fields`` replace its values, and one
    that is given as ``...`` is left out."""
    config: dict[str, Any] = {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 8,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "lora_ga_config": None,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "monteclora_config": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": 4,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj", "v_proj"],
        "target_parameters": None,
        "task_type": None,
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
        "velora_config": None,
    }
    config.update(fields)
    return {name: value for name, value in config.items() if value is not ...}


def lora_tensors(
    modules: Mapping[str, tuple[int, int]], r: int = 4, dtype: str = "F32"
) -> dict[str, Spec]:
    """The factors of a LoRA on linear ``modules``, given as {name: (in, out)}."""
    tensors: dict[str, Spec] = {}
    for name, (inside, outside) in modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = (dtype, (r, inside))
        tensors[f"base_model.model.{name}.lora_B.weight"] = (dtype, (outside, r))
    return tensors


LLAMA_QV: Mapping[str, tuple[int, int]] = {
    f"model.layers.{n}.self_attn.{p}": (HIDDEN, out)
    for n in range(LAYERS)
    for p, out in (("q_proj", HIDDEN), ("v_proj", KV))
}
"""``q_proj`` and ``v_proj`` of the tiny Llama: {name: (in, out)}."""


def write_adapter(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Spec] | None = None,
    seed: int | None = 0,
    overrides: Mapping[str, bytes] | None = None,
) -> Path:
    """A LoRA folder; by default r=4 on q and v of the tiny Llama, with values that act."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(lora_config() if config is None else config, indent=2)
    (folder / "adapter_config.json").write_text(text)
    specs = lora_tensors(LLAMA_QV) if tensors is None else tensors
    write_safetensors(folder / "adapter_model.safetensors", specs, seed, overrides=overrides)
    return folder


def adapter_facts(
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Spec] | None = None,
    name: str = "tone",
    **more: Any,
) -> AdapterFacts:
    """What the registry knows of such an adapter."""
    data = safetensors_bytes(lora_tensors(LLAMA_QV) if tensors is None else tensors)
    header = parse_header(data, len(data))
    return AdapterFacts(name, None, lora_config() if config is None else config, header, **more)


def base_config(kind: str, **fields: Any) -> dict[str, Any]:
    """``config.json`` of a tiny ``llama``, ``gpt2`` or ``bert``; ``fields`` replace values."""
    configs: dict[str, dict[str, Any]] = {
        "llama": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": VOCAB,
        },
        "gpt2": {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_positions": POSITIONS,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-05,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "vocab_size": VOCAB,
        },
        "bert": {
            "architectures": ["BertForSequenceClassification"],
            "model_type": "bert",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "pad_token_id": 0,
            "torch_dtype": "float32",
            "vocab_size": VOCAB,
        },
    }
    return {**configs[kind], **fields}


def base_tensors(kind: str, dtype: str = "F32", tied: bool = False) -> dict[str, Spec]:
    """The tensors on disk of a tiny base; a ``tied`` Llama has no head of its own."""
    return {name: (dtype, shape) for name, shape in _base_shapes(kind, tied).items()}


def write_base(
    folder: Path,
    kind: str = "llama",
    seed: int | None = 1,
    dtype: str = "F32",
    tokenizer: bool = False,
    **fields: Any,
) -> Path:
    """A checkpoint folder that transformers loads. ``fields`` go into its config (with
    ``tie_word_embeddings=True`` the Llama is written without a head); sizes stay."""
    folder.mkdir(parents=True, exist_ok=True)
    config = base_config(kind, **fields)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tied = bool(config.get("tie_word_embeddings"))
    write_safetensors(folder / "model.safetensors", base_tensors(kind, dtype, tied), seed)
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, added: Mapping[str, int] | None = None) -> Path:
    """A ``tokenizer.json`` of VOCAB words, ``w0`` to ``w63``, and ``added`` tokens by id."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"w{n}": n for n in range(3, VOCAB)}
    tokens = [
        {
            "id": number,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for content, number in {"<unk>": 0, "<s>": 1, "</s>": 2, **(added or {})}.items()
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def base_facts(kind: str = "llama", layout: Layout | None = None, **fields: Any) -> BaseFacts:
    """What the registry knows of such a base; ``layout`` defaults to :func:`base_layout`."""
    config = base_config(kind, **fields)
    tied = bool(config.get("tie_word_embeddings"))
    data = safetensors_bytes(base_tensors(kind, tied=tied))
    header = parse_header(data, len(data))
    known = base_layout(kind, tied) if layout is None else layout
    return BaseFacts(None, config, header.tensors, known)


def base_layout(kind: str = "llama", tied: bool = False) -> Layout:
    """The live modules of a tiny base, as transformers builds them."""
    shapes = _base_shapes(kind, tied=False)
    if kind == "gpt2":
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    parameters: dict[str, dict[str, tuple[int, ...]]] = {"": {}}
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            parameters.setdefault(".".join(parts[:depth]), {})
        parameters[module][parameter] = shape
    modules = {name: _module(kind, name, owned) for name, owned in parameters.items()}
    head = {"llama": "lm_head", "gpt2": "lm_head", "bert": "classifier"}[kind]
    ties: dict[str, str] = {}
    if kind == "gpt2":
        ties = {"lm_head.weight": "transformer.wte.weight"}
    elif tied:
        ties = {"lm_head.weight": "model.embed_tokens.weight"}
    prefix = {"llama": "model", "gpt2": "transformer", "bert": "bert"}[kind]
    return Layout(modules, frozenset({head}), ties, prefix)


def _module(kind: str, name: str, owned: Mapping[str, tuple[int, ...]]) -> ModuleShape:
    weight = owned.get("weight")
    last = name.rpartition(".")[2]
    if weight is None:
        return ModuleShape(ModuleKind.OTHER, parameters=owned)
    if len(weight) == 1:
        return ModuleShape(ModuleKind.NORM, parameters=owned)
    if last in ("wte", "wpe", "embed_tokens") or last.endswith("_embeddings"):
        return ModuleShape(ModuleKind.EMBEDDING, weight[0], weight[1], owned)
    if kind == "gpt2" and last != "lm_head":
        return ModuleShape(ModuleKind.CONV1D, weight[0], weight[1], owned)
    return ModuleShape(ModuleKind.LINEAR, weight[1], weight[0], owned)


def _base_shapes(kind: str, tied: bool) -> dict[str, tuple[int, ...]]:
    return {"llama": _llama, "gpt2": _gpt2, "bert": _bert}[kind](tied)


def _llama(tied: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.self_attn.k_proj.weight": (KV, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (KV, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{at}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, INNER),
            f"{at}.input_layernorm.weight": (HIDDEN,),
            f"{at}.post_attention_layernorm.weight": (HIDDEN,),
        }
    shapes["model.norm.weight"] = (HIDDEN,)
    if not tied:
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    return shapes


def _gpt2(tied: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCAB, HIDDEN),
        "transformer.wpe.weight": (POSITIONS, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{norm}.weight": (HIDDEN,), f"{at}.{norm}.bias": (HIDDEN,)}
        for name, inside, outside in (
            ("attn.c_attn", HIDDEN, 3 * HIDDEN),
            ("attn.c_proj", HIDDEN, HIDDEN),
            ("mlp.c_fc", HIDDEN, 4 * HIDDEN),
            ("mlp.c_proj", 4 * HIDDEN, HIDDEN),
        ):
            shapes |= {f"{at}.{name}.weight": (inside, outside), f"{at}.{name}.bias": (outside,)}
    return shapes | {"transformer.ln_f.weight": (HIDDEN,), "transformer.ln_f.bias": (HIDDEN,)}


def _bert(tied: bool) -> dict[str, tuple[int, ...]]:
    at = "bert.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}.word_embeddings.weight": (VOCAB, HIDDEN),
        f"{at}.position_embeddings.weight": (POSITIONS, HIDDEN),
        f"{at}.token_type_embeddings.weight": (2, HIDDEN),
        f"{at}.LayerNorm.weight": (HIDDEN,),
        f"{at}.LayerNorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        at = f"bert.encoder.layer.{layer}"
        for name, inside, outside in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", HIDDEN, INNER),
            ("output.dense", INNER, HIDDEN),
        ):
            shapes |= {f"{at}.{name}.weight": (outside, inside), f"{at}.{name}.bias": (outside,)}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{norm}.weight": (HIDDEN,), f"{at}.{norm}.bias": (HIDDEN,)}
    for name, outside in (("bert.pooler.dense", HIDDEN), ("classifier", 2)):
        shapes |= {f"{name}.weight": (outside, HIDDEN), f"{name}.bias": (outside,)}
    return shapes
