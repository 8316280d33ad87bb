"""The modules that PEFT adapts where a config names none, by the base's ``model_type``.

Facts of PEFT 0.21.2, ``utils/constants.py``; a test compares them with the installed PEFT. They are
for beginning an adapter: what PEFT saved names its modules.
"""

from __future__ import annotations

from collections.abc import Mapping

Targets = tuple[str, ...] | str
Table = Mapping[str, Targets]


def _rows(*groups: tuple[str, Targets]) -> dict[str, Targets]:
    """A table from (model types, parted by blanks; their modules)."""
    return {kind: targets for kinds, targets in groups for kind in kinds.split()}


_QV: Targets = ("q_proj", "v_proj")
_QUERY: Targets = ("query", "value")
_LORA: Table = _rows(
    ("t5 mt5", ("q", "v")),
    ("bart opt gptj gpt_neo llama llama4 mistral mixtral stablelm", _QV),
    ("gemma gemma2 gemma3_text qwen2 qwen3", _QV),
    ("gpt2 gpt_bigcode", ("c_attn",)),
    ("bloom gpt_neox chatglm RefinedWebModel RefinedWeb falcon", ("query_key_value",)),
    ("blip-2", ("q", "v", "q_proj", "v_proj")),
    ("bert roberta xlm-roberta electra layoutlm", _QUERY),
    ("deberta-v2", ("query_proj", "value_proj")),
    ("deberta", ("in_proj",)),
    ("mpt", ("Wqkv",)),
    ("btlm", ("c_proj", "c_attn")),
    ("codegen", ("qkv_proj",)),
    ("phi", ("q_proj", "v_proj", "fc1", "fc2")),
    ("gemma4", r".*language_model\..*\.(q_proj|v_proj)"),
    ("nemotron_h", ("q_proj", "k_proj", "v_proj", "o_proj")),
    ("rwkv", ("key", "value", "receptance", "output")),
    ("rwkv7", ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value")),
)
_NORMS: Targets = ("input_layernorm", "post_attention_layernorm", "norm")
_GEMMA_NORMS: Targets = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "norm",
)
_LN_TUNING: Table = _rows(
    ("llama mistral gemma", _NORMS),
    ("gemma2 gemma3_text", _GEMMA_NORMS),
    ("bloom falcon", ("input_layernorm", "post_attention_layernorm", "ln_f")),
    ("llava", ("multi_modal_projector", *_NORMS, "embed_tokens", "lm_head")),
    ("t5 mt5", ("layer_norm", "final_layer_norm")),
    ("bart", ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")),
    ("gpt2", ("ln_1", "ln_2", "ln_f")),
    ("blip-2", ("layernorm", "LayerNorm", "final_layer_norm", "self_attn_layer_norm")),
    ("gptj", ("ln_1", "ln_f")),
    ("phi", ("input_layernorm", "final_layernorm")),
    ("qwen2 qwen3", ("post_attention_layernorm",)),
)
_IA3: Table = _rows(
    ("t5", ("k", "v", "wo")),
    ("mt5", ("k", "v", "wi_1")),
    ("gpt2 gpt_bigcode", ("c_attn", "mlp.c_proj")),
    ("bloom", ("query_key_value", "mlp.dense_4h_to_h")),
    ("gpt_neox RefinedWebModel RefinedWeb falcon", ("query_key_value", "dense_4h_to_h")),
    ("roberta bert", ("key", "value", "output.dense")),
    ("opt", ("q_proj", "k_proj", "fc2")),
    ("gptj", ("q_proj", "v_proj", "fc_out")),
    ("gpt_neo", ("q_proj", "v_proj", "c_proj")),
    ("bart phi", ("q_proj", "v_proj", "fc2")),
    ("llama mistral", ("k_proj", "v_proj", "down_proj")),
    ("llama4 gemma gemma2 gemma3_text qwen2 qwen3", ("q_proj", "v_proj", "down_proj")),
    ("mixtral", ("k_proj", "v_proj", "w2")),
    ("deberta-v2", ("key_proj", "value_proj", "output.dense")),
    ("deberta", ("in_proj", "output.dense")),
)

TARGETS: Mapping[str, Table] = {
    "LORA": _LORA,
    "LOHA": _LORA,
    "LOKR": _LORA,
    "OFT": _LORA,
    "VERA": {**_LORA, "phi": _QV},
    "IA3": _IA3,
    "LN_TUNING": _LN_TUNING,
}
"""``target_modules`` by method and ``model_type``."""

FEEDFORWARD: Table = _rows(
    ("t5", ("wo",)),
    ("mt5", ()),
    ("gpt2 gpt_bigcode", ("mlp.c_proj",)),
    ("bloom", ("mlp.dense_4h_to_h",)),
    ("gpt_neox RefinedWeb RefinedWebModel falcon", ("dense_4h_to_h",)),
    ("roberta bert deberta-v2 deberta", ("output.dense",)),
    ("opt bart phi", ("fc2",)),
    ("gptj", ("fc_out",)),
    ("gpt_neo", ("c_proj",)),
    ("llama llama4 mistral gemma gemma2 gemma3_text qwen2 qwen3", ("down_proj",)),
    ("mixtral", ("w2",)),
)
"""``feedforward_modules`` of IA3."""
