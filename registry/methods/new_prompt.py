"""New virtual tokens, before there are values: the sizes that their config leaves to the base, and
what it may ask for.

Follows PEFT 0.21.2, ``utils/other.py`` (``_prepare_prompt_learning_config``) and ``peft_model.py``
(``_setup_prompt_encoder``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ...manifests.findings import training as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import Layout
from .new_adapter import NewAdapter
from .prompt_config import EMBEDDINGS, PREFIX_TUNING, SEQ_2_SEQ

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """Fill in what the config leaves open, as PEFT does from the base's ``config.json``. A size
    that neither has stays open. The heads of prefix tuning are those of keys and values."""
    inner = base.get("text_config")
    text = cast("Mapping[str, Any]", inner) if isinstance(inner, dict) else base
    full = dict(config)
    if full.get("num_layers") is None:
        full["num_layers"] = _first(base, _LAYERS[:1]) or _first(text, _LAYERS)
    if full.get("token_dim") is None:
        full["token_dim"] = _first(text, _WIDTHS)
    if full.get("num_attention_heads") is None:
        full["num_attention_heads"] = _first(text, _HEADS)
    keys = text.get("num_key_value_heads")
    width, heads = full["token_dim"], full["num_attention_heads"]
    if full.get("peft_type") == PREFIX_TUNING and isinstance(keys, int) and width and heads:
        head = text.get("head_dim")
        full["token_dim"] = (head if isinstance(head, int) else width // heads) * keys
        full["num_attention_heads"] = keys
    if full.get("num_transformer_submodules") is None:
        full["num_transformer_submodules"] = 2 if full.get("task_type") == SEQ_2_SEQ else 1
    if full.get("encoder_hidden_size") is None and full.get("peft_type") != "PROMPT_TUNING":
        full["encoder_hidden_size"] = full["token_dim"]
    return full


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def beside(new: NewAdapter) -> Mapping[str, Shape]:
    """The virtual tokens of a checked config."""
    said = new.said
    tokens, width = said["num_virtual_tokens"], said["token_dim"]
    if said["peft_type"] == PREFIX_TUNING:
        return {EMBEDDINGS: (tokens, said["num_layers"] * 2 * width)}
    return {EMBEDDINGS: (tokens * said["num_transformer_submodules"], width)}


def check_new(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find invalid initialisations and encoders, and sizes that are missing."""
    found: list[Finding] = []

    def refuse(message: str, said: object, expected: object) -> None:
        found.append(codes.NEW_INIT.finding(message, where, found=said, expected=expected))

    kind = config.get("peft_type")
    needed = ("num_virtual_tokens", "token_dim")
    if kind == PREFIX_TUNING:
        needed = (*needed, "num_layers", "num_attention_heads")
    if missing := [name for name in needed if config.get(name) is None]:
        refuse("Sizes of the virtual tokens are missing", "nothing", ", ".join(missing))

    def choose(name: str, default: str, values: tuple[str, ...]) -> object:
        value = config.get(name, default)
        if value not in values:
            refuse(f"Invalid {name} {value!r}", value, ", ".join(values))
        return value

    if kind == "PROMPT_TUNING":
        start = choose("prompt_tuning_init", "RANDOM", ("RANDOM", "SAMPLE_VOCAB", "TEXT"))
        for name in ("prompt_tuning_init_text", "tokenizer_name_or_path"):
            if start == "TEXT" and not config.get(name):
                refuse(f"prompt_tuning_init: TEXT needs {name}", "nothing", "text")
    if kind == "P_TUNING":
        choose("encoder_reparameterization_type", "MLP", ("MLP", "LSTM"))
    how = config.get("init_weights")
    if kind == PREFIX_TUNING and how not in (None, "zero"):
        refuse(f"Invalid init_weights {how!r}", how, "null or zero")
    return found
