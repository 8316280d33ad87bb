"""Tiny transformers models of many kinds, made from code, and their checkpoints on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from adapterdock.registry.files.facts import BaseFacts
from adapterdock.registry.files.header import read_header

_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
_MOE = {**_TEXT, "num_local_experts": 4, "num_experts_per_tok": 2}
_ENCODER = {k: v for k, v in _TEXT.items() if k != "num_key_value_heads"}
_T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_SPEECH: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_CLIP_TEXT = {**_ENCODER, "projection_dim": 16}


def _gemma3() -> Any:
    return tf.Gemma3Config(
        text_config={**_TEXT, "head_dim": 8, "sliding_window": 8},
        vision_config={**_VISION},
        mm_tokens_per_image=4,
        image_token_index=60,
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_TEXT)),
    "llama tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_TEXT, tie_word_embeddings=True)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_TEXT)),
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**_GPT2)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_ENCODER)),
    "bert": lambda: tf.BertModel(tf.BertConfig(**_ENCODER)),
    "bert masked": lambda: tf.BertForMaskedLM(tf.BertConfig(**_ENCODER)),
    "bert classifier": lambda: tf.BertForSequenceClassification(tf.BertConfig(**_ENCODER)),
    "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**_ENCODER)),
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**_T5)),
    "bart": lambda: tf.BartForConditionalGeneration(
        tf.BartConfig(**{k: v for k, v in _SPEECH.items() if "max_" not in k and "mel" not in k})
    ),
    "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**_MOE)),
    "qwen3_moe": lambda: tf.Qwen3MoeForCausalLM(
        tf.Qwen3MoeConfig(**_TEXT, head_dim=8, num_experts=4, moe_intermediate_size=16)
    ),
    "vit": lambda: tf.ViTForImageClassification(tf.ViTConfig(**_VISION)),
    "gemma3": lambda: tf.Gemma3ForConditionalGeneration(_gemma3()),
    "gemma3 text": lambda: tf.Gemma3ForCausalLM(
        tf.Gemma3TextConfig(**_TEXT, head_dim=8, sliding_window=8)
    ),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**_ENCODER, ffn_dim=48, word_embed_proj_dim=32)),
    "whisper": lambda: tf.WhisperForConditionalGeneration(tf.WhisperConfig(**_SPEECH)),
    "clip": lambda: tf.CLIPModel(
        tf.CLIPConfig(text_config=_CLIP_TEXT, vision_config=_VISION, projection_dim=16)
    ),
}


@cache
def tiny(kind: str) -> Any:
    """One shared model a kind: not to be changed. Weights are random and of one seed."""
    return fresh(kind, seed=0)


def fresh(kind: str, seed: int = 0) -> Any:
    """A new model; every float parameter random, so that nothing is constant."""
    torch.manual_seed(seed)
    model = MAKERS[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def base_facts_of(folder: Path) -> BaseFacts:
    """A checkpoint folder as the torch-free side sees it."""
    headers, tensors = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        header = read_header(lambda s, n, c=content: c[s : s + n], len(content), file=path.name)
        headers[path.name] = header
        tensors |= header.tensors
    config = json.loads((folder / "config.json").read_text())
    return BaseFacts(None, config, tensors, None, headers)


def reader_of(folder: Path) -> Callable[[str, int, int], bytes]:
    def read(file: str, start: int, length: int) -> bytes:
        with (folder / file).open("rb") as handle:
            handle.seek(start)
            return handle.read(length)

    return read
