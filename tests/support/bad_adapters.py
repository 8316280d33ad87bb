"""Thirty-two adapters that no server should serve, each with a legitimate one that is nearly the
same; and what vLLM 0.32 does with them.

``write(case, folder)`` writes one; :data:`TINY` is the base of the lean tests, :data:`SMOLLM2` that
of the real server.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from .builders import (
    HIDDEN,
    KV,
    LAYERS,
    VOCAB,
    Spec,
    lora_config,
    lora_tensors,
    safetensors_bytes,
    write_adapter,
)

LIMIT = 16
"""``--max-lora-rank`` of the server."""


@dataclass(frozen=True)
class Size:
    """A Llama that the adapters are for, as far as they need it."""

    name: str
    hidden: int
    kv: int
    layers: int
    vocab: int

    def modules(self, *names: str, layers: range | None = None) -> dict[str, tuple[int, int]]:
        """Attention modules of each layer: {name: (in, out)}."""
        out = {"q_proj": self.hidden, "o_proj": self.hidden}
        return {
            f"model.layers.{n}.self_attn.{name}": (self.hidden, out.get(name, self.kv))
            for n in layers or range(self.layers)
            for name in names or ("q_proj", "v_proj")
        }


TINY = Size("org/base", HIDDEN, KV, LAYERS, VOCAB)
SMOLLM2 = Size("HuggingFaceTB/SmolLM2-135M-Instruct", 576, 192, 30, 49152)


class Does(str, Enum):
    """What vLLM 0.32 does with one."""

    REFUSES = "refuses to load it, with a message"
    AS_ADAPTER = "loads it, and answers with it"
    AS_BASE = "loads it, and answers as the base"
    ENDS = "loads it, and answers every later request, the base's too, with nothing"


@dataclass(frozen=True)
class Files:
    """An adapter to be written: its config, and its tensors as ``builders`` has them."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Spec]
    overrides: Mapping[str, bytes] = field(default_factory=dict)
    seed: int | None = 3
    pickled: bool = False


Build = Callable[[Size], Files]


@dataclass(frozen=True)
class Case:
    """A bad adapter. ``run`` says whether ``does`` was seen on a server, or read in its code."""

    name: str
    does: Does
    bad: Build
    twin: Build
    run: bool = True


def write(build: Build, folder: Path, size: Size = TINY) -> Path:
    """Write what ``build`` (a case's ``bad`` or ``twin``) makes; the folder."""
    files = build(size)
    if files.pickled:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(files.config))
        import torch
        from safetensors.torch import load

        data = safetensors_bytes(files.tensors, files.seed, overrides=files.overrides)
        torch.save(load(data), folder / "adapter_model.bin")
        return folder
    return write_adapter(folder, files.config, files.tensors, files.seed, files.overrides)


def plain(size: Size, r: int = 4, *names: str, **fields: Any) -> Files:
    """LoRA on q_proj and v_proj, or the modules ``names``."""
    said = {"target_modules": list(names or ("q_proj", "v_proj")), "r": r, "lora_alpha": _STRONG}
    config = lora_config(**{"base_model_name_or_path": size.name, **said, **fields})
    return Files(config, lora_tensors(size.modules(*names), r))


def _with(**fields: Any) -> Build:
    return lambda size: plain(size, **fields)


def _added(files: Files, tensors: Mapping[str, Spec], **fields: Any) -> Files:
    return replace(files, config={**files.config, **fields}, tensors={**files.tensors, **tensors})


def _at_sites(
    size: Size, suffix: str, shape: Callable[[int, int], tuple[int, ...]]
) -> dict[str, Spec]:
    """One more tensor at each adapted module, by its (in, out)."""
    return {
        f"base_model.model.{name}.{suffix}": ("F32", shape(inside, outside))
        for name, (inside, outside) in size.modules().items()
    }


def _renamed(files: Files, old: str, new: str) -> Files:
    return replace(
        files, tensors={name.replace(old, new, 1): spec for name, spec in files.tensors.items()}
    )


_OUTPUT = "base_model.model.lm_head.weight"


def _complete(files: Files, key: str, size: Size) -> Files:
    """With a complete embedding too; zeros, because many random numbers take long."""
    zeros = bytes(4 * size.vocab * size.hidden)
    files = _added(files, {key: ("F32", (size.vocab, size.hidden))})
    return replace(files, overrides={**files.overrides, key: zeros})


def _dora(size: Size) -> Files:
    magnitudes = _at_sites(size, "lora_magnitude_vector", lambda i, o: (o,))
    return _added(plain(size), magnitudes, use_dora=True)


def _head_saved(size: Size) -> Files:
    return _complete(plain(size, modules_to_save=["lm_head"]), _OUTPUT, size)


def _bias(size: Size) -> Files:
    # a Llama has no biases: the config asks for what the file cannot have
    return plain(size, bias="all")


def _lora_bias(size: Size) -> Files:
    return _added(plain(size), _at_sites(size, "lora_B.bias", lambda i, o: (o,)), lora_bias=True)


def _rank_pattern(rank: int) -> Build:
    def build(size: Size) -> Files:
        tensors = {
            **lora_tensors(size.modules("q_proj"), rank),
            **lora_tensors(size.modules("v_proj"), 4),
        }
        return replace(plain(size, rank_pattern={"q_proj": rank}), tensors=tensors)

    return build


def _replicated(size: Size) -> Files:
    return plain(size, layer_replication=[[0, 2], [1, 2]])


def _loha(size: Size) -> Files:
    keep = {k: v for k, v in plain(size).config.items() if k in _COMMON}
    config = {**keep, "peft_type": "LOHA", "r": 4, "alpha": 8}
    tensors: dict[str, Spec] = {}
    for name, (inside, outside) in size.modules().items():
        for end in ("w1", "w2"):
            tensors[f"base_model.model.{name}.hada_{end}_a"] = ("F32", (outside, 4))
            tensors[f"base_model.model.{name}.hada_{end}_b"] = ("F32", (4, inside))
    return Files(config, tensors)


_COMMON = frozenset(
    {"base_model_name_or_path", "target_modules", "task_type", "inference_mode", "peft_version"}
)


def _tokens(size: Size) -> Files:
    key = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    return _added(plain(size), {key: ("F32", (2, size.hidden))}, trainable_token_indices=[5, 6])


def _embedding(rows: int = 0, copied: bool = False) -> Build:
    def build(size: Size) -> Files:
        at = "base_model.model.model.embed_tokens"
        tensors: dict[str, Spec] = {
            f"{at}.lora_embedding_A": ("F32", (4, size.vocab + rows)),
            f"{at}.lora_embedding_B": ("F32", (size.hidden, 4)),
        }
        names = ["q_proj", "v_proj", "embed_tokens"]
        files = _added(plain(size), tensors, target_modules=names)
        return _complete(files, f"{at}.base_layer.weight", size) if copied else files

    return build


def _unknown_targets(size: Size) -> Files:
    files = _renamed(plain(size), "", "")
    tensors = {
        name.replace("self_attn.q_proj", "attention.wq"): spec
        for name, spec in files.tensors.items()
        if "q_proj" in name
    }
    return replace(files, config={**files.config, "target_modules": ["wq"]}, tensors=tensors)


def _ranks(said: int, stored: int) -> Build:
    return lambda size: replace(plain(size, said), tensors=lora_tensors(size.modules(), stored))


def _hidden(more: int) -> Build:
    def build(size: Size) -> Files:
        other = replace(size, hidden=size.hidden + more)
        return replace(plain(size), tensors=lora_tensors(other.modules(), 4))

    return build


def _layers(layers: Callable[[Size], range], **fields: Any) -> Build:
    def build(size: Size) -> Files:
        tensors = lora_tensors(size.modules(layers=layers(size)), 4)
        return replace(plain(size, **fields), tensors=tensors)

    return build


def _prefix(old: str, new: str) -> Build:
    return lambda size: _renamed(plain(size), old, new)


def _pickled(size: Size) -> Files:
    return replace(plain(size), pickled=True)


def _zero(size: Size) -> Files:
    return replace(plain(size), seed=None)


def _one_zero(size: Size) -> Files:
    files = plain(size)
    first = next(name for name in sorted(files.tensors) if "lora_B" in name)
    count = math.prod(files.tensors[first][1])
    return replace(files, overrides={first: bytes(4 * count)})


def _value(value: float) -> Build:
    """One value of one tensor is this."""

    def build(size: Size) -> Files:
        files = plain(size)
        first = next(name for name in sorted(files.tensors) if "lora_B" in name)
        count = math.prod(files.tensors[first][1])
        raw = struct.pack(f"<{count}f", value, *[0.01] * (count - 1))
        return replace(files, overrides={first: raw})

    return build


def _stored(size: Size) -> Files:
    return _complete(plain(size), _OUTPUT, size)


def _velora(size: Size) -> Files:
    groups = {"num_groups": 4, "scale": 1.0, "init_type": "batch_average_once"}
    extra = _at_sites(size, "lora_velora_embed", lambda i, o: (-(-i // 4),))
    return _added(plain(size), extra, velora_config=groups)


def _bdlora(size: Size) -> Files:
    blocks = {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": None, "nblocks": 2}
    tensors = dict(plain(size).tensors)
    for name, (inside, _) in size.modules("q_proj").items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = ("F32", (4, inside // 2))
    return replace(plain(size, use_bdlora={**blocks, "match_strict": True}), tensors=tensors)


_STRONG = 64
"""An alpha with which these random values in all layers change SmolLM2's answers."""
_WEAK = 0.01
"""An alpha with which one layer of them changes no word."""
_REFUSES, _AS_ADAPTER, _AS_BASE, _ENDS = Does.REFUSES, Does.AS_ADAPTER, Does.AS_BASE, Does.ENDS

CASES: tuple[Case, ...] = (
    Case("dora", _REFUSES, _dora, _with()),
    Case("modules-to-save", _REFUSES, _head_saved, _with()),
    Case("bias", _REFUSES, _bias, _with(bias="none")),
    Case("lora-bias", _REFUSES, _lora_bias, _with()),
    Case("rank-over-limit", _REFUSES, _with(r=2 * LIMIT), _with(r=LIMIT)),
    Case("rank-pattern-over-limit", _REFUSES, _rank_pattern(2 * LIMIT), _rank_pattern(LIMIT)),
    Case("pissa", _REFUSES, _with(init_lora_weights="pissa"), _with(init_lora_weights="gaussian")),
    Case(
        "alora",
        _REFUSES,
        _with(alora_invocation_tokens=[5, 6]),
        _with(alora_invocation_tokens=[]),
    ),
    Case("layer-replication", _REFUSES, _replicated, _with(layer_replication=None)),
    Case("loha", _REFUSES, _loha, _with()),
    Case("trainable-tokens", _REFUSES, _tokens, _with(trainable_token_indices=None)),
    Case("wrong-vocabulary", _REFUSES, _embedding(rows=8), _embedding()),
    Case("unknown-targets", _REFUSES, _unknown_targets, lambda s: plain(s, 4, "q_proj", "o_proj")),
    Case("understated-rank", _REFUSES, _ranks(4, 2 * LIMIT), _ranks(LIMIT, LIMIT)),
    Case("larger-hidden-size", _REFUSES, _hidden(16), _hidden(0)),
    Case(
        "another-base",
        _AS_ADAPTER,
        _with(base_model_name_or_path="someone/another-base"),
        _with(),
    ),
    Case("peft-type-ia3", _AS_ADAPTER, _with(peft_type="IA3"), _with(peft_type="LORA")),
    Case("missing-prefix", _AS_ADAPTER, _prefix("base_model.model.", ""), _with()),
    Case("pickle", _AS_ADAPTER, _pickled, _with()),
    Case("smaller-hidden-size", _AS_ADAPTER, _hidden(-8), _hidden(0)),
    Case("prefix-off-by-one", _AS_BASE, _prefix("model.model.model", "model.model"), _with()),
    Case(
        "wrong-layers",
        _AS_BASE,
        _layers(lambda size: range(size.layers, 2 * size.layers)),
        _layers(lambda size: range(size.layers)),
    ),
    Case(
        "only-layer-0",
        _AS_BASE,
        _layers(lambda size: range(1), lora_alpha=_WEAK),
        _layers(lambda size: range(1), lora_alpha=_WEAK, layers_to_transform=[0]),
    ),
    Case("all-zero", _AS_BASE, _zero, _one_zero),
    Case("nan", _ENDS, _value(math.nan), _value(0.5)),
    Case("infinite", _ENDS, _value(-math.inf), _value(3e38), run=False),
    Case(
        "olora", _REFUSES, _with(init_lora_weights="olora"), _with(init_lora_weights="eva"), False
    ),
    Case("bd-lora", _REFUSES, _bdlora, _with(use_bdlora=None), run=False),
    Case("stored-output-layer", _REFUSES, _stored, _embedding(copied=True), run=False),
    Case("velora", _REFUSES, _velora, _with(velora_config=None), run=False),
    Case("understated-rank-within-limit", _AS_ADAPTER, _ranks(4, 8), _ranks(8, 8), run=False),
    Case("overstated-rank", _AS_ADAPTER, _ranks(8, 4), _ranks(4, 4), run=False),
)
