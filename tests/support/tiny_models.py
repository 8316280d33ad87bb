"""Tiny models of many architectures, built from code: ``(class, config class, options)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn

COMMON: dict[str, Any] = {
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
ENCODER = {k: v for k, v in COMMON.items() if k != "num_key_value_heads"}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEPSEEK: dict[str, Any] = {
    **COMMON,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
LLAMA_TEXT = {"model_type": "llama", **COMMON}
CLIP_TEXT = {k: v for k, v in ENCODER.items() if k != "pad_token_id"}

NEMOTRON_H: dict[str, Any] = {
    "hybrid_override_pattern": "M*-E",
    "head_dim": 8,
    "ssm_state_size": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 1,
    "n_routed_experts": 4,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
}
"""One layer of each kind that Nemotron-H has."""

TINY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", COMMON),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", {**COMMON, "tie_word_embeddings": True}),
    "llama with biases": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**COMMON, "attention_bias": True, "mlp_bias": True},
    ),
    "llama for sequences": ("LlamaForSequenceClassification", "LlamaConfig", COMMON),
    "llama base": ("LlamaModel", "LlamaConfig", COMMON),
    "mistral": ("MistralForCausalLM", "MistralConfig", COMMON),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", COMMON),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**COMMON, "head_dim": 8}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**COMMON, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**COMMON, "head_dim": 8}),
    "gemma3 text": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**COMMON, "head_dim": 8}),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {"text_config": {**COMMON, "head_dim": 8}, "vision_config": VISION},
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", COMMON),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", COMMON),
    "phimoe": ("PhimoeForCausalLM", "PhimoeConfig", {**COMMON, "num_local_experts": 4}),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "gpt2 for sequences": (
        "GPT2ForSequenceClassification",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "num_labels": 3},
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
        },
    ),
    "gptj": (
        "GPTJForCausalLM",
        "GPTJConfig",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", ENCODER),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 64,
        },
    ),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "falcon": ("FalconForCausalLM", "FalconConfig", ENCODER),
    "mpt": (
        "MptForCausalLM",
        "MptConfig",
        {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4},
    ),
    "codegen": (
        "CodeGenForCausalLM",
        "CodeGenConfig",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "bert": ("BertForMaskedLM", "BertConfig", ENCODER),
    "bert base": ("BertModel", "BertConfig", ENCODER),
    "bert for sequences": (
        "BertForSequenceClassification",
        "BertConfig",
        {**ENCODER, "num_labels": 3},
    ),
    "bert for tokens": ("BertForTokenClassification", "BertConfig", ENCODER),
    "bert for questions": ("BertForQuestionAnswering", "BertConfig", ENCODER),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", ENCODER),
    "roberta for sequences": ("RobertaForSequenceClassification", "RobertaConfig", ENCODER),
    "xlm-roberta": ("XLMRobertaForMaskedLM", "XLMRobertaConfig", ENCODER),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    ),
    "distilbert masked": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", {**ENCODER, "embedding_size": 16}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {
            **ENCODER,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "conv_kernel_size": 3,
        },
    ),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**ENCODER, "embedding_size": 16}),
    "mpnet": ("MPNetForMaskedLM", "MPNetConfig", ENCODER),
    "bros": ("BrosModel", "BrosConfig", ENCODER),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", ENCODER),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "t5 v1.1": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            "tie_word_embeddings": False,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "t5 encoder": (
        "T5EncoderModel",
        "T5Config",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", SEQ2SEQ),
    "bart for sequences": ("BartForSequenceClassification", "BartConfig", SEQ2SEQ),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", SEQ2SEQ),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", SEQ2SEQ),
    "marian": ("MarianMTModel", "MarianConfig", SEQ2SEQ),
    "m2m_100": ("M2M100ForConditionalGeneration", "M2M100Config", SEQ2SEQ),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", {**SEQ2SEQ, "num_mel_bins": 8}),
    "wav2vec2": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        {
            **ENCODER,
            "conv_dim": [16, 16],
            "conv_kernel": [3, 3],
            "conv_stride": [2, 2],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
    "hubert": (
        "HubertForCTC",
        "HubertConfig",
        {
            **ENCODER,
            "conv_dim": [16, 16],
            "conv_kernel": [3, 3],
            "conv_stride": [2, 2],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 16},
    ),
    "clip vision": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION),
    "siglip": ("SiglipModel", "SiglipConfig", {"text_config": CLIP_TEXT, "vision_config": VISION}),
    "vit": ("ViTForImageClassification", "ViTConfig", VISION),
    "vit base": ("ViTModel", "ViTConfig", VISION),
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", VISION),
    "beit": ("BeitForImageClassification", "BeitConfig", VISION),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", VISION),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 2,
        },
    ),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.25, "image_size": 32},
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {"text_config": LLAMA_TEXT, "vision_config": {"model_type": "clip_vision_model", **VISION}},
    ),
    "llava of other parts": (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {**LLAMA_TEXT, "model_type": "qwen2"},
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
        },
    ),
    "paligemma": (
        "PaliGemmaForConditionalGeneration",
        "PaliGemmaConfig",
        {
            "text_config": {**LLAMA_TEXT, "model_type": "gemma", "head_dim": 8},
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "projection_dim": 32,
        },
    ),
    "qwen2_vl": (
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLConfig",
        {
            "text_config": {
                **COMMON,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            },
            "vision_config": {
                "depth": 2,
                "embed_dim": 32,
                "num_heads": 4,
                "hidden_size": 32,
                "patch_size": 4,
                "in_chans": 3,
            },
        },
    ),
    "blip2": (
        "Blip2ForConditionalGeneration",
        "Blip2Config",
        {
            "vision_config": VISION,
            "qformer_config": {**ENCODER, "encoder_hidden_size": 32},
            "text_config": {
                "model_type": "opt",
                "vocab_size": 64,
                "hidden_size": 32,
                "ffn_dim": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "word_embed_proj_dim": 32,
                "max_position_embeddings": 64,
            },
        },
    ),
    "encoder-decoder": (
        "EncoderDecoderModel",
        "EncoderDecoderConfig",
        {
            "encoder": {"model_type": "bert", **ENCODER},
            "decoder": {
                "model_type": "bert",
                **ENCODER,
                "is_decoder": True,
                "add_cross_attention": True,
            },
        },
    ),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**COMMON, "num_local_experts": 4}),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**COMMON, **MOE, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**COMMON, **MOE, "head_dim": 8}),
    "deepseek_v2": ("DeepseekV2ForCausalLM", "DeepseekV2Config", DEEPSEEK),
    "deepseek_v2 lite": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {**DEEPSEEK, "q_lora_rank": None},
    ),
    "deepseek_v3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", DEEPSEEK),
    "olmo": ("OlmoForCausalLM", "OlmoConfig", COMMON),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", COMMON),
    "olmoe": (
        "OlmoeForCausalLM",
        "OlmoeConfig",
        {**COMMON, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**COMMON, "num_local_experts": 4, "head_dim": 8},
    ),
    "llama4 text": (
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {
            **COMMON,
            "num_local_experts": 4,
            "intermediate_size_mlp": 48,
            "head_dim": 8,
            "interleave_moe_layer_step": 2,
        },
    ),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    "mamba2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
        },
    ),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {
            **COMMON,
            "num_experts": 4,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "granite": ("GraniteForCausalLM", "GraniteConfig", COMMON),
    "granitemoe": ("GraniteMoeForCausalLM", "GraniteMoeConfig", {**COMMON, "num_local_experts": 4}),
    "cohere": ("CohereForCausalLM", "CohereConfig", COMMON),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", COMMON),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", COMMON),
    "gpt_bigcode": (
        "GPTBigCodeForCausalLM",
        "GPTBigCodeConfig",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
    ),
    "dbrx": (
        "DbrxForCausalLM",
        "DbrxConfig",
        {
            "vocab_size": 64,
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": 64,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", COMMON),
    "glm": ("GlmForCausalLM", "GlmConfig", {**COMMON, "head_dim": 8}),
    "rwkv": (
        "RwkvForCausalLM",
        "RwkvConfig",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    ),
}


def tiny_model(name: str, changes: Mapping[str, Any] | None = None) -> nn.Module:
    """One of ``TINY`` with random weights; ``changes`` are further config options."""
    cls, config, options = TINY[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**{**options, **(changes or {})})
    model: nn.Module = getattr(transformers, cls)(made)
    return model
