"""An adapter of every native method on every kind of module that its delta can be merged into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    TrainableTokensConfig,
    VeraConfig,
)
from torch import nn

from .moes import tiny_gpt_oss, tiny_mixtral, tiny_qwen_moe
from .peft_adapters import (
    Saved,
    inputs_of,
    peft_saves,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)

CONVOLUTIONS = ["first", "grouped", "line", "head"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ROWS = sorted({int(i) for i in inputs_of(tiny_llama())["input_ids"][0, :3]})


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


def narrow_conv() -> Any:
    """A convolution of one pixel, strided."""
    torch.manual_seed(0)
    net = tiny_conv()
    net.first = nn.Conv2d(3, 8, 1, stride=2, padding=1)
    net.grouped = nn.Conv2d(8, 8, 1)
    return net


@dataclass(frozen=True)
class Case:
    """``peft`` says whether PEFT's own merge gives PEFT's own live answer."""

    make: Callable[..., Any]
    kind: Any
    config: dict[str, Any] = field(default_factory=dict)
    peft: bool = True
    whole: bool = False
    """Brings whole modules: at weight 1 only."""


LORA = {"r": 4, "lora_alpha": 8}
STEPS = {"total_step": 10, "init_r": 4}
LINEARS = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
CASES: dict[str, Case] = {
    "ia3": Case(
        tiny_llama,
        IA3Config,
        {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "ia3 with biases": Case(
        tiny_bert,
        IA3Config,
        {
            "target_modules": ["key", "value", "output.dense"],
            "feedforward_modules": ["output.dense"],
        },
    ),
    "ia3 conv1d": Case(
        tiny_gpt2,
        IA3Config,
        {
            "target_modules": ["c_attn", "mlp.c_proj"],
            "feedforward_modules": ["mlp.c_proj"],
            "fan_in_fan_out": True,
        },
    ),
    "ia3 convolutions": Case(
        tiny_conv,
        IA3Config,
        {
            "target_modules": ["first", "grouped", "deep", "head"],
            "feedforward_modules": ["grouped", "deep"],
        },
    ),
    "ia3 convolutions, outputs": Case(
        tiny_conv,
        IA3Config,
        {"target_modules": ["first", "grouped", "deep", "head"], "feedforward_modules": []},
    ),
    "ia3 and a head": Case(
        tiny_llama,
        IA3Config,
        {"target_modules": ["v_proj"], "feedforward_modules": [], "modules_to_save": ["lm_head"]},
        whole=True,
    ),
    "loha": Case(tiny_llama, LoHaConfig, {"target_modules": "all-linear", "r": 3, "alpha": 5}),
    "loha conv": Case(tiny_conv, LoHaConfig, {"target_modules": CONVOLUTIONS, "r": 3}),
    "loha effective conv": Case(
        tiny_conv,
        LoHaConfig,
        {"target_modules": CONVOLUTIONS, "r": 3, "use_effective_conv2d": True},
    ),
    "lokr": Case(tiny_llama, LoKrConfig, {"target_modules": "all-linear", "r": 1, "alpha": 3}),
    "lokr whole factors": Case(
        tiny_llama, LoKrConfig, {"target_modules": "all-linear", "r": 20, "alpha": 30}
    ),
    "lokr both low": Case(
        tiny_llama,
        LoKrConfig,
        {"target_modules": "all-linear", "r": 1, "decompose_both": True, "decompose_factor": 4},
    ),
    "lokr conv": Case(tiny_conv, LoKrConfig, {"target_modules": CONVOLUTIONS, "r": 1}),
    "lokr whole conv": Case(tiny_conv, LoKrConfig, {"target_modules": CONVOLUTIONS, "r": 8}),
    "oft": Case(tiny_llama, OFTConfig, {**LINEARS, "oft_block_size": 4}),
    "oft exact": Case(
        tiny_llama, OFTConfig, {**LINEARS, "oft_block_size": 4, "use_cayley_neumann": False}
    ),
    "oft shared": Case(
        tiny_llama, OFTConfig, {**LINEARS, "oft_block_size": 4, "block_share": True}
    ),
    "oft constrained": Case(
        tiny_llama, OFTConfig, {**LINEARS, "oft_block_size": 4, "coft": True, "eps": 0.2}
    ),
    "oft embedding": Case(
        tiny_llama, OFTConfig, {"target_modules": ["embed_tokens", "v_proj"], "oft_block_size": 4}
    ),
    "oft biases": Case(
        tiny_bert, OFTConfig, {"target_modules": ["query"], "oft_block_size": 4, "bias": "all"}
    ),
    "oft of one pixel": Case(
        narrow_conv, OFTConfig, {"target_modules": ["grouped", "head"], "oft_block_size": 4}
    ),
    "adalora": Case(tiny_llama, AdaLoraConfig, {"target_modules": "all-linear", **STEPS}),
    "adalora conv1d": Case(
        tiny_gpt2,
        AdaLoraConfig,
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, **STEPS},
    ),
    "adalora conv": Case(tiny_conv, AdaLoraConfig, {"target_modules": ["first", "head"], **STEPS}),
    "adalora biases": Case(
        tiny_bert, AdaLoraConfig, {"target_modules": ["query"], "bias": "lora_only", **STEPS}
    ),
    "vera": Case(tiny_llama, VeraConfig, {**LINEARS, "r": 8}),
    "vera made again": Case(tiny_llama, VeraConfig, {**LINEARS, "r": 8, "save_projection": False}),
    "vera conv1d": Case(
        tiny_gpt2,
        VeraConfig,
        {"target_modules": ["c_attn", "c_fc"], "r": 8, "fan_in_fan_out": True},
    ),
    "vera biases": Case(
        tiny_bert, VeraConfig, {"target_modules": ["query"], "r": 8, "bias": "vera_only"}
    ),
    "dora": Case(
        tiny_llama, LoraConfig, {**LORA, "target_modules": "all-linear", "use_dora": True}
    ),
    "dora conv1d": Case(
        tiny_gpt2,
        LoraConfig,
        {
            **LORA,
            "target_modules": ["c_attn", "c_proj"],
            "fan_in_fan_out": True,
            "use_dora": True,
        },
    ),
    "dora embedding": Case(
        tiny_llama,
        LoraConfig,
        {**LORA, "target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    ),
    "dora convolutions": Case(
        tiny_conv,
        LoraConfig,
        {**LORA, "target_modules": ["first", "line", "deep", "head"], "use_dora": True},
    ),
    "dora and a head": Case(
        tiny_llama,
        LoraConfig,
        {**LORA, **LINEARS, "use_dora": True, "modules_to_save": ["lm_head"]},
        whole=True,
    ),
    "norms": Case(
        tiny_llama, LNTuningConfig, {"target_modules": ["input_layernorm", "norm"]}, whole=True
    ),
    "norms of bert": Case(
        tiny_bert,
        LNTuningConfig,
        {"target_modules": ["LayerNorm"], "task_type": "SEQ_CLS"},
        whole=True,
    ),
    "norms and a head": Case(
        tiny_llama,
        LNTuningConfig,
        {"target_modules": ["norm"], "modules_to_save": ["lm_head"]},
        whole=True,
    ),
    "tokens": Case(tiny_llama, TrainableTokensConfig, {"token_indices": ROWS}),
    "tokens, tied": Case(tied_llama, TrainableTokensConfig, {"token_indices": ROWS}),
    "tokens, tied by four": Case(tiny_t5, TrainableTokensConfig, {"token_indices": ROWS}),
    "tokens beside a lora": Case(
        tied_llama,
        LoraConfig,
        {**LORA, "target_modules": ["q_proj"], "trainable_token_indices": ROWS[::-1]},
    ),
    "tokens of both": Case(
        tied_llama,
        LoraConfig,
        {
            **LORA,
            "target_modules": ["q_proj"],
            "trainable_token_indices": {"embed_tokens": ROWS, "lm_head": [4, 60]},
        },
        peft=False,
    ),
    "tokens of a head": Case(
        tiny_llama,
        LoraConfig,
        {**LORA, "target_modules": ["q_proj"], "trainable_token_indices": {"lm_head": [4, 0]}},
    ),
    "experts": Case(
        tiny_mixtral,
        LoraConfig,
        {**LORA, "target_parameters": EXPERTS, "target_modules": ["q_proj"]},
    ),
    "experts of qwen": Case(
        tiny_qwen_moe, LoraConfig, {**LORA, "target_parameters": EXPERTS, "target_modules": []}
    ),
    "transposed experts": Case(
        tiny_gpt_oss, LoraConfig, {**LORA, "target_parameters": EXPERTS, "target_modules": []}
    ),
    "a router": Case(
        tiny_mixtral,
        LoraConfig,
        {**LORA, "target_parameters": ["gate.weight"], "target_modules": []},
    ),
    "a linear's parameter": Case(
        tiny_llama,
        LoraConfig,
        {**LORA, "target_parameters": ["mlp.down_proj.weight"], "target_modules": ["q_proj"]},
    ),
}


def saved_for(case: Case, base: Any, folder: Path, seed: int = 7) -> Saved:
    """What PEFT saves of the case for ``base``."""
    return peft_saves(base, folder, kind=case.kind, seed=seed, **case.config)
