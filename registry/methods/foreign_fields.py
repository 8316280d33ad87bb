"""Fields that other trainers add to PEFT's ``adapter_config.json``, for any method.

ms-swift 2 to 4: ``swift/tuners/peft.py`` (its ``LoraConfig``). LLaMA-Factory and Axolotl: the names
of their own settings for LoRA+ (https://arxiv.org/abs/2402.12354). transformers: what its configs
of generation hold (huggingface/peft#1168). vLLM: ``vllm/lora/peft_helper.py``. mlx-lm:
``mlx_lm/tuner/utils.py``. LoRAMoE: its ``LoraConfig``.
"""

from __future__ import annotations

from collections.abc import Mapping

from .options import Option, Support

_NO, _YET = Support.NO_EFFECT, Support.NOT_YET

FOREIGN_FIELDS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("lora_dtype", _NO, "is ms-swift's dtype of the factors while training"),
        Option("lorap_lr_ratio", _NO, "is ms-swift's learning rate of B (LoRA+)"),
        Option("lorap_emb_lr", _NO, "is ms-swift's learning rate of embeddings (LoRA+)"),
        Option("loraplus_lr_ratio", _NO, "is the learning rate of B (LoRA+)"),
        Option("loraplus_lr_embedding", _NO, "is the learning rate of embeddings (LoRA+)"),
        Option("_from_model_config", _NO, "is a mark of transformers' generation config"),
        Option("transformers_version", _NO, "is the transformers that wrote it"),
        Option("unsloth_version", _NO, "is the Unsloth that wrote it"),
        Option("use_qa_lora", _YET, "pools the input by groups (ms-swift's QA-LoRA)"),
        Option("use_merged_linear", _YET, "adapts parts of a fused layer (ms-swift)"),
        Option("context_length", _YET, "stretches the base's positions (vLLM's long LoRA)"),
        Option("lora_nums", _YET, "has several factors and routes between them (LoRAMoE)"),
        Option("lora_parameters", _YET, "is mlx-lm's rank, scale and targets"),
    )
}
"""By name. Fields without effect act while training, or are notes; the others change what the
adapter computes."""
