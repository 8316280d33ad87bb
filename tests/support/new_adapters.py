"""New adapters of every method that trains, here and in PEFT, and steps of training on both."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from adapterdock.loader.adapted import AdaptedModel
from safetensors.torch import load_file

from .moes import tiny_gpt_oss, tiny_mixtral
from .peft_adapters import (
    ids,
    inputs_of,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CAUSAL = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
SEQ2SEQ = {"num_virtual_tokens": 3, "task_type": "SEQ_2_SEQ_LM"}


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


Case = tuple[Callable[[], Any], dict[str, Any]]
"""A base, and the fields of a config."""


def _of(peft_type: str, make: Callable[[], Any], **fields: Any) -> Case:
    return make, {"peft_type": peft_type, **fields}


CASES: dict[str, Case] = {
    "lora": _of("LORA", tiny_llama, r=4, target_modules=["q_proj", "down_proj"]),
    "lora, pefts modules": _of("LORA", tiny_gpt2),
    "lora, gaussian": _of(
        "LORA", tiny_llama, r=4, target_modules=["q_proj"], init_lora_weights="gaussian"
    ),
    "lora, not zero": _of(
        "LORA",
        tiny_llama,
        r=4,
        target_modules=["q_proj", "v_proj"],
        lora_bias=True,
        init_lora_weights=False,
    ),
    "lora, orthogonal": _of(
        "LORA", tiny_llama, r=4, target_modules=["q_proj"], init_lora_weights="orthogonal"
    ),
    "lora, mica": _of(
        "LORA",
        tiny_llama,
        r=4,
        target_modules=["q_proj", "down_proj", "embed_tokens"],
        init_lora_weights="mica",
    ),
    "lora, blocks": _of(
        "LORA",
        tiny_llama,
        r=4,
        target_modules=["q_proj", "o_proj"],
        use_bdlora={
            "target_modules_bd_a": ["o_proj"],
            "target_modules_bd_b": ["q_proj"],
            "nblocks": 2,
            "match_strict": True,
        },
    ),
    "lora, from an invocation on": _of(
        "LORA",
        tiny_llama,
        r=4,
        target_modules=["q_proj", "o_proj"],
        alora_invocation_tokens=[int(token) for token in ids()[0, 3:5]],
        task_type="CAUSAL_LM",
    ),
    "lora, its bias": _of("LORA", tiny_llama, r=4, target_modules=["q_proj"], lora_bias=True),
    "lora, embedding": _of("LORA", tiny_llama, r=4, target_modules=["embed_tokens", "v_proj"]),
    "lora, nothing to tie": _of(
        "LORA", tiny_llama, r=4, target_modules=["embed_tokens"], ensure_weight_tying=True
    ),
    "lora, convolutions": _of(
        "LORA", tiny_conv, r=4, target_modules=["first", "grouped", "line", "deep", "head"]
    ),
    "lora, patterns": _of(
        "LORA",
        tiny_llama,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 2},
        alpha_pattern={"v_proj": 3},
        use_rslora=True,
    ),
    "lora, all biases": _of("LORA", tiny_bert, r=4, target_modules=["query"], bias="all"),
    "lora, a head": _of("LORA", tiny_bert, r=4, task_type="SEQ_CLS"),
    "dora": _of("LORA", tiny_llama, r=4, target_modules=["q_proj", "embed_tokens"], use_dora=True),
    "dora, not zero": _of(
        "LORA",
        tiny_llama,
        r=4,
        target_modules=["q_proj"],
        use_dora=True,
        init_lora_weights=False,
    ),
    "dora, conv1d": _of("LORA", tiny_gpt2, r=4, target_modules=["c_attn"], use_dora=True),
    "dora, convolutions": _of(
        "LORA", tiny_conv, r=4, target_modules=["first", "line", "deep"], use_dora=True
    ),
    "lora, tokens": _of(
        "LORA", tiny_llama, r=4, target_modules=["q_proj"], trainable_token_indices=[6, 39]
    ),
    "lora, tied tokens": _of(
        "LORA",
        tied_llama,
        r=4,
        target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [6, 39]},
    ),
    "lora, experts": _of("LORA", tiny_mixtral, r=2, target_modules=[], target_parameters=BOTH),
    "lora, turned experts": _of(
        "LORA", tiny_gpt_oss, r=2, target_modules=["q_proj"], target_parameters=BOTH
    ),
    "lora, a parameter": _of(
        "LORA", tiny_llama, r=2, target_modules=[], target_parameters=["mlp.down_proj.weight"]
    ),
    "tokens": _of("TRAINABLE_TOKENS", tiny_llama, token_indices=[6, 39]),
    "tokens, tied": _of("TRAINABLE_TOKENS", tied_llama, token_indices=[6, 39]),
    "tokens, normal": _of(
        "TRAINABLE_TOKENS",
        tiny_bert,
        token_indices=[6, 39],
        target_modules=["word_embeddings"],
        init_weights=False,
    ),
    "ia3": _of("IA3", tiny_llama),
    "ia3, normal": _of(
        "IA3",
        tiny_llama,
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
    ),
    "ia3, convolutions": _of(
        "IA3", tiny_conv, target_modules=["first", "grouped"], feedforward_modules=["grouped"]
    ),
    "loha": _of("LOHA", tiny_llama, r=3, target_modules=["q_proj", "down_proj"]),
    "loha, not zero": _of("LOHA", tiny_llama, r=3, init_weights=False),
    "loha, kernels": _of(
        "LOHA", tiny_conv, r=3, target_modules=["first", "line"], use_effective_conv2d=True
    ),
    "loha, convolutions": _of("LOHA", tiny_conv, r=3, target_modules=["first", "line"]),
    "lokr": _of("LOKR", tiny_llama, r=2, target_modules=["q_proj", "down_proj"]),
    "lokr, both": _of(
        "LOKR",
        tiny_llama,
        r=1,
        target_modules=["q_proj", "down_proj"],
        decompose_both=True,
        decompose_factor=8,
    ),
    "lokr, lycoris": _of(
        "LOKR", tiny_llama, r=1, target_modules=["q_proj", "down_proj"], init_weights="lycoris"
    ),
    "lokr, not zero": _of("LOKR", tiny_llama, r=1, init_weights=False),
    "lokr, kernels": _of(
        "LOKR", tiny_conv, r=1, target_modules=["first"], use_effective_conv2d=True
    ),
    "oft": _of("OFT", tiny_llama, oft_block_size=4, target_modules=["q_proj"]),
    "oft, constrained": _of(
        "OFT",
        tiny_llama,
        r=2,
        oft_block_size=0,
        block_share=True,
        coft=True,
        eps=1e-3,
        target_modules=["q_proj", "embed_tokens"],
    ),
    "oft, normal": _of(
        "OFT", tiny_llama, oft_block_size=4, target_modules=["q_proj"], init_weights=False
    ),
    "oft, its biases": _of(
        "OFT", tiny_bert, oft_block_size=4, target_modules=["query"], bias="oft_only"
    ),
    "oft, convolution": _of("OFT", tiny_conv, oft_block_size=3, target_modules=["first"]),
    "vera": _of("VERA", tiny_llama, r=4, target_modules=["q_proj", "o_proj"], d_initial=0.3),
    "vera, not saved": _of(
        "VERA",
        tiny_llama,
        r=4,
        save_projection=False,
        projection_prng_key=7,
        target_modules=["q_proj", "down_proj"],
    ),
    "vera, its biases": _of("VERA", tiny_bert, r=4, target_modules=["query"], bias="vera_only"),
    "ln tuning": _of("LN_TUNING", tiny_llama),
    "ln tuning, a head": _of(
        "LN_TUNING", tiny_bert, target_modules=["LayerNorm"], task_type="SEQ_CLS"
    ),
    "ln tuning, batch norm": _of("LN_TUNING", tiny_conv, target_modules=["norm"]),
    "prompt": _of("PROMPT_TUNING", tiny_llama, **CAUSAL),
    "prompt, sampled": _of(
        "PROMPT_TUNING", tiny_llama, prompt_tuning_init="SAMPLE_VOCAB", **CAUSAL
    ),
    "prompt, t5": _of("PROMPT_TUNING", tiny_t5, **SEQ2SEQ),
    "p-tuning": _of("P_TUNING", tiny_llama, encoder_hidden_size=7, **CAUSAL),
    "p-tuning, lstm": _of(
        "P_TUNING",
        tiny_llama,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=7,
        **CAUSAL,
    ),
    "prefix": _of("PREFIX_TUNING", tiny_llama, **CAUSAL),
    "prefix, zero": _of("PREFIX_TUNING", tiny_llama, init_weights="zero", **CAUSAL),
    "prefix, projected": _of(
        "PREFIX_TUNING", tiny_llama, prefix_projection=True, encoder_hidden_size=5, **CAUSAL
    ),
    "prefix, t5": _of("PREFIX_TUNING", tiny_t5, **SEQ2SEQ),
}

METHODS = {
    name: CASES[name]
    for name in (
        "lora",
        "dora",
        "lora, tied tokens",
        "lora, experts",
        "tokens",
        "ia3",
        "loha",
        "lokr",
        "oft",
        "vera",
        "ln tuning",
        "prompt",
        "p-tuning",
        "prefix",
    )
}
"""One of each, for what takes longer."""


def peft_config(fields: Mapping[str, Any]) -> Any:
    """PEFT's own config object of these fields."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    own = {name: copy.deepcopy(value) for name, value in fields.items() if name != "peft_type"}
    return PEFT_TYPE_TO_CONFIG_MAPPING[fields["peft_type"]](**own)


def peft_creates(base: Any, fields: Mapping[str, Any], seed: int = 5) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return get_peft_model(copy.deepcopy(base), peft_config(fields))


def new_adapter(base: Any, fields: Any, seed: int = 5, name: str = "it") -> AdaptedModel:
    """A model with a new adapter, which answers."""
    model = AdaptedModel(base)
    torch.manual_seed(seed)
    model.add_adapter(name, fields)
    model.set_adapter(name)
    return model


def written(model: Any, folder: Path, name: str = "it") -> tuple[dict[str, torch.Tensor], Any]:
    """What the model saves of its adapter: tensors, and the config with sets as sorted lists."""
    if isinstance(model, AdaptedModel):
        model.save_adapter(folder, name)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(str(folder), save_embedding_layers=False)
    config = json.loads((folder / "adapter_config.json").read_text())
    plain = {
        key: sorted(set(value))
        if isinstance(value, list) and value and isinstance(value[0], str)
        else value
        for key, value in config.items()
    }
    return load_file(folder / "adapter_model.safetensors"), plain


def batch_of(base: Any) -> dict[str, torch.Tensor]:
    """Inputs with labels, where the base has a loss of its own."""
    inputs = inputs_of(base)
    kind = type(base).__name__
    if kind == "BertForSequenceClassification":
        return {**inputs, "labels": torch.tensor([0, 2])}
    if kind == "T5ForConditionalGeneration":
        return {"input_ids": ids(), "labels": ids(length=4)}
    return inputs if "input_ids" not in inputs else {**inputs, "labels": inputs["input_ids"]}


def steps(model: Any, base: Any, count: int = 3, rate: float = 0.1) -> list[float]:
    """The losses of some steps of gradient descent, without dropout."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    model.eval()
    losses: list[float] = []
    for _ in range(count):
        out = model(**batch_of(base))
        loss = out.square().mean() if isinstance(out, torch.Tensor) else out.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
