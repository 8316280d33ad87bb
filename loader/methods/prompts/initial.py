"""The first values of virtual tokens, by method.

Follows PEFT 0.21, ``tuners/prompt_tuning/model.py``, ``tuners/p_tuning/model.py`` and
``tuners/prefix_tuning/model.py``; numbers are drawn in PEFT's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....manifests.findings import training as codes
from ....manifests.findings.errors import AttachError
from ....manifests.findings.finding import Where
from .encoders import Encoder, PrefixEncoder, PromptEncoder, initial_encoder

Drawn = Tensor | Encoder
"""The tokens as on disk, or the encoder that computes them."""


def initial_prompt(
    method: str,
    shape: tuple[int, ...],
    config: Mapping[str, Any],
    embedding: nn.Module | None,
    generator: torch.Generator | None,
    directory: Path,
    where: Where,
) -> Drawn:
    """The virtual tokens of ``shape``, in float32 on the CPU. ``embedding`` is the base's token
    embedding; a tokenizer's relative path starts at ``directory``. Raises :class:`AttachError` if
    a text cannot be tokenized."""
    if method == "P_TUNING":
        return initial_encoder(PromptEncoder, config, generator)
    if method == "PREFIX_TUNING" and config.get("prefix_projection"):
        return initial_encoder(PrefixEncoder, config, generator)
    drawn = torch.empty(shape).normal_(generator=generator)
    if method == "PREFIX_TUNING":
        return drawn.zero_() if config.get("init_weights") == "zero" else drawn
    start = config.get("prompt_tuning_init", "RANDOM")
    if start == "RANDOM" or embedding is None:  # without an embedding it cannot be attached
        return drawn
    if start == "SAMPLE_VOCAB":
        rows = cast(nn.Embedding, embedding).num_embeddings
        ids = torch.randint(0, rows, shape[:1], generator=generator)
    else:
        found = _tokens(config, directory, where)
        ids = torch.tensor((found * (shape[0] // len(found) + 1))[: shape[0]])
    with torch.no_grad():
        device = next(embedding.parameters()).device
        return embedding(ids.to(device)).to("cpu", torch.float32)


def _tokens(config: Mapping[str, Any], directory: Path, where: Where) -> list[int]:
    """The ids of ``prompt_tuning_init_text``, by a tokenizer on this machine."""
    from transformers import AutoTokenizer

    name = str(config["tokenizer_name_or_path"])
    here = directory / name
    options = dict(config.get("tokenizer_kwargs") or {})
    options.pop("trust_remote_code", None)
    load = cast(Callable[..., Any], AutoTokenizer.from_pretrained)
    try:
        tokenizer = load(str(here) if here.is_dir() else name, local_files_only=True, **options)
        ids = list(tokenizer(config["prompt_tuning_init_text"])["input_ids"])
    except Exception as error:
        message = f"Cannot read a tokenizer from {name}"
        raise AttachError(codes.NEW_TOKENIZER.finding(message, where, found=error)) from error
    if not ids:
        message = "The tokenizer returns no tokens for prompt_tuning_init_text"
        raise AttachError(codes.NEW_TOKENIZER.finding(message, where, found=name))
    return ids
