"""Small mixtures of experts, made from code."""

from __future__ import annotations

from typing import Any

import torch

_SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}


def tiny_mixtral(**changes: Any) -> Any:
    """4 experts; their parameters are (experts, out, in)."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(**{**_SIZES, "num_local_experts": 4, **changes})
    return MixtralForCausalLM(config).eval()


def tiny_qwen_moe(**changes: Any) -> Any:
    """4 experts; their parameters are (experts, out, in)."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {**_SIZES, "moe_intermediate_size": 12, "head_dim": 4}
    config = Qwen3MoeConfig(
        **{**sizes, "num_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False}
        | changes
    )
    return Qwen3MoeForCausalLM(config).eval()


def tiny_gpt_oss(**changes: Any) -> Any:
    """4 experts; their parameters are (experts, in, out), and have biases."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    sizes = {**_SIZES, "head_dim": 4, "num_local_experts": 4, "rope_parameters": rope}
    return GptOssForCausalLM(GptOssConfig(**{**sizes, **changes})).eval()
