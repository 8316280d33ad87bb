"""The folder that the pages in ``docs/`` work in: ``python docs/example.py FOLDER`` makes it.

It holds a desk that answers ``hello``: ``base``, a Llama of two layers that fits into 200 KB and
knows 32 words, with its tokenizer; adapters in PEFT's format; and ``adapters.yaml`` with its
lock. Nothing is
trained and nothing is random: the weights are written so that each word brings the next one, an
adapter brings another next one for some words, and everything else is small noise. So what is
printed is the same on every machine.
"""

from __future__ import annotations

import json
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import adapterdock
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SAYS = (
    "hello how can I help you ?",
    "with your invoice ?",
    "find a lawyer ?",
    "good day , how",
    "ahoy matey , how",
    "thanks any time .",
    "my pleasure .",
)
"""What the base says: each word brings the one after it, and ``?`` and ``.`` the end."""

ADAPTERS: dict[str, tuple[int, int, tuple[str, ...], dict[str, str]]] = {
    "billing": (4, 8, ("v_proj", "down_proj"), {"help": "with"}),
    "tone": (2, 2, ("down_proj",), {"hello": "good", "thanks": "my"}),
    "tone-v2": (4, 8, ("down_proj",), {"hello": "ahoy", "thanks": "my"}),
    "legal": (8, 16, ("q_proj", "v_proj", "down_proj"), {"help": "find"}),
}
"""Each adapter's rank, alpha, targets, and the words that it brings instead."""

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
WORDS = (*SPECIAL, *dict.fromkeys(word for line in SAYS for word in line.split()))
SIZE, LAYERS = 32, 2
"""How many words there is room for. A hidden state has the word that was read in its first 32
values, and what an adapter wants instead in the other 32."""

MANIFEST = """\
version: 1
base:
  model: ./base
  aliases: [example/desk]      # what the adapters call it
  dtype: float32
adapters:
  billing: {source: ./billing}
  tone: {source: ./tone}
  legal: {source: ./legal}
compositions:
  formal:
    of: {billing: 1.0, tone: 0.6}
rules:
  exclusive: [[billing, legal]]
active: billing
"""


def next_words() -> dict[str, str]:
    """Which word each word brings."""
    brings = {"?": "</s>", ".": "</s>"}
    for line in SAYS:
        brings.update(pairwise(line.split()))
    return brings


def noise(rows: int, columns: int, salt: int) -> torch.Tensor:
    """Small numbers that look random; computed in integers, so that they are the same anywhere."""
    numbers = torch.arange(rows * columns) * 7919 + salt * 104729
    return ((numbers * numbers % 2003).float() / 2003 - 0.5).reshape(rows, columns) * 0.04


def base() -> LlamaForCausalLM:
    """The model: ``lm_head`` knows the next words, and every hidden neuron one word."""
    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=2 * SIZE,
        intermediate_size=SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    for salt, parameter in enumerate(model.parameters()):
        if parameter.dim() == 2:
            parameter.data = noise(*parameter.shape, salt)
    words = torch.eye(SIZE, 2 * SIZE)
    model.model.embed_tokens.weight.data = words.clone()
    for layer in model.model.layers:
        layer.mlp.gate_proj.weight.data = words.clone()
        layer.mlp.up_proj.weight.data = words / (2 * SIZE)
    head = torch.eye(SIZE, 2 * SIZE).roll(SIZE, 1)
    for word, following in next_words().items():
        head[WORDS.index(following), WORDS.index(word)] = 1
    model.lm_head.weight.data = head
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    table = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(WordLevel(table, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
    )


def write_adapter(
    folder: Path, rank: int, alpha: int, targets: tuple[str, ...], brings: dict[str, str]
) -> None:
    """A LoRA in PEFT's format: noise, and in the last layer what it brings, at a strength that
    wins from a weight of 0.5 on."""
    widths = {"q_proj": (64, 64), "v_proj": (64, 32), "down_proj": (32, 64)}
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(LAYERS):
        for target in targets:
            room = "mlp" if target == "down_proj" else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{room}.{target}"
            inside, outside = widths[target]
            a, b = noise(rank, inside, layer + rank), noise(outside, rank, layer + rank + 1)
            if target == "down_proj" and layer == LAYERS - 1:
                a[: len(brings)] = 0
                b[:, : len(brings)] = 0
                for row, (word, wanted) in enumerate(brings.items()):
                    a[row, WORDS.index(word)] = 1
                    b[SIZE + WORDS.index(wanted), row] = 2 * rank / alpha
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "example/desk",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(targets),
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def make(folder: Path) -> None:
    """Write everything into ``folder``, which may be there already but holds none of it."""
    base().save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    for name, adapter in ADAPTERS.items():
        write_adapter(folder / name, *adapter)
    (folder / "adapters.yaml").write_text(MANIFEST)
    adapterdock.lock(folder / "adapters.yaml")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python docs/example.py FOLDER")
    make(Path(sys.argv[1]))
    print(f"cd {shlex.quote(sys.argv[1])}  # base, {', '.join(ADAPTERS)}, adapters.yaml")
