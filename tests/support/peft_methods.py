"""An adapter of each method that attaches through PEFT, small and trained at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .peft_adapters import Saved, peft_saves, tiny_bert, tiny_conv, tiny_gpt2, tiny_llama, tiny_t5


def llama_with_biases() -> Any:
    return tiny_llama(attention_bias=True)


TARGETS = {"target_modules": ["q_proj", "down_proj"]}
Case = tuple[Callable[[], Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "ADAMSS": (tiny_llama, {**TARGETS, "r": 4, "num_subspaces": 2}),
    "BEFT": (llama_with_biases, {"target_modules": ["q_proj", "v_proj"]}),
    "BOFT": (tiny_llama, TARGETS),
    "C3A": (tiny_llama, {**TARGETS, "block_size": 8}),
    "DEFT": (tiny_llama, TARGETS),
    "DELORA": (tiny_llama, TARGETS),
    "FOURIERFT": (tiny_llama, {**TARGETS, "n_frequency": 20}),
    "FROD": (tiny_llama, {**TARGETS, "progressbar": False}),
    "GLORA": (tiny_llama, TARGETS),
    "GRALORA": (tiny_llama, {**TARGETS, "r": 4, "alpha": 8}),
    "HIRA": (tiny_llama, {**TARGETS, "r": 4}),
    "HRA": (tiny_llama, {**TARGETS, "r": 4}),
    "LILY": (tiny_llama, {**TARGETS, "r": 4}),
    "MISS": (tiny_llama, {**TARGETS, "r": 4}),
    "OSF": (tiny_llama, TARGETS),
    "PEANUT": (tiny_llama, {**TARGETS, "r": 4}),
    "PSOFT": (tiny_llama, {**TARGETS, "r": 4}),
    "PVERA": (tiny_llama, {**TARGETS, "r": 4}),
    "RANDLORA": (tiny_llama, {**TARGETS, "r": 4}),
    "ROAD": (tiny_llama, {**TARGETS, "group_size": 8}),
    "SHIRA": (tiny_llama, {**TARGETS, "r": 2, "random_seed": 1}),
    "SUPERTUNING": (tiny_llama, {**TARGETS, "sparsity": 0.8}),
    "TINYLORA": (tiny_llama, {**TARGETS, "u": 4}),
    "UNILORA": (tiny_llama, {**TARGETS, "theta_d_length": 16}),
    "VBLORA": (tiny_llama, {**TARGETS, "vector_length": 8, "num_vectors": 8, "r": 2}),
    "WAVEFT": (tiny_llama, {**TARGETS, "n_frequency": 24}),
}
"""One for each method."""

_LILY = {**TARGETS, "target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4}
OTHERS: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "BOFT at a convolution": (
        "BOFT",
        tiny_conv,
        {"target_modules": ["first"], "boft_block_size": 3},
    ),
    "HIRA at convolutions": ("HIRA", tiny_conv, {"target_modules": ["first", "head"], "r": 2}),
    "HIRA at an embedding": (
        "HIRA",
        tiny_llama,
        {"target_modules": ["embed_tokens", "v_proj"], "r": 2},
    ),
    "HRA at BERT, with a head": (
        "HRA",
        tiny_bert,
        {"target_modules": ["query", "value"], "r": 2, "task_type": "SEQ_CLS"},
    ),
    "BOFT with its biases": ("BOFT", tiny_bert, {"target_modules": ["query"], "bias": "boft_only"}),
    "all biases": ("HRA", tiny_bert, {"target_modules": ["query"], "bias": "all", "r": 2}),
    "FOURIERFT at Conv1D": (
        "FOURIERFT",
        tiny_gpt2,
        {"target_modules": ["c_attn"], "n_frequency": 30, "fan_in_fan_out": True},
    ),
    "MISS at T5": ("MISS", tiny_t5, {"target_modules": ["q", "wo"], "r": 4}),
    "MISS, bat": (
        "MISS",
        tiny_llama,
        {"target_modules": ["q_proj"], "r": 4, "init_weights": "bat"},
    ),
    "TINYLORA at an embedding": (
        "TINYLORA",
        tiny_llama,
        {"target_modules": ["embed_tokens", "q_proj"], "u": 4},
    ),
    "TINYLORA, tied": ("TINYLORA", tiny_llama, {**TARGETS, "u": 4, "weight_tying": 1.0}),
    "LILY, shared in pairs": ("LILY", tiny_llama, {**_LILY, "stride_A": 2}),
    "LILY by a pattern": ("LILY", tiny_llama, {"target_modules": r".*\.[qk]_proj", "r": 4}),
    "VBLORA, the best logits only": (
        "VBLORA",
        tiny_llama,
        {**CASES["VBLORA"][1], "save_only_topk_weights": True},
    ),
    "PVERA without projections": (
        "PVERA",
        tiny_llama,
        {**TARGETS, "r": 4, "save_projection": False},
    ),
    "UNILORA with its numbers": (
        "UNILORA",
        tiny_llama,
        {**TARGETS, "theta_d_length": 16, "save_indices": True},
    ),
    "ranks by a pattern": (
        "DELORA",
        tiny_llama,
        {
            **TARGETS,
            "rank_pattern": {r"layers\.1\..*q_proj": 3},
            "lambda_pattern": {"down_proj": 3},
        },
    ),
    "frequencies by a pattern": (
        "FOURIERFT",
        tiny_llama,
        {**TARGETS, "n_frequency": 20, "n_frequency_pattern": {"q_proj": 12}},
    ),
    "block sizes by a pattern": (
        "C3A",
        tiny_llama,
        {**TARGETS, "block_size": 8, "block_size_pattern": {"q_proj": 4}},
    ),
    "a pattern of targets": ("HRA", tiny_llama, {"target_modules": r".*\.1\..*_proj", "r": 2}),
    "all linear": ("MISS", tiny_llama, {"target_modules": "all-linear", "r": 4}),
    "layers": ("HRA", tiny_llama, {**TARGETS, "r": 2, "layers_to_transform": [1]}),
    "modules to save": ("MISS", tiny_llama, {**TARGETS, "r": 4, "modules_to_save": ["lm_head"]}),
}
"""Further forms: (method, base, config)."""


def config_class(method: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils.peft_types import PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method)]


def saved_by_peft(method: str, folder: Path, base: Any = None, **more: Any) -> Saved:
    """The adapter of :data:`CASES`, for its own base or another one."""
    make, config = CASES[method]
    return peft_saves(base or make(), folder, kind=config_class(method), **{**config, **more})
