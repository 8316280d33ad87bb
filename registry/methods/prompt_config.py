"""The configs of prompt tuning, p-tuning and prefix tuning, read strictly: each field of PEFT's
``PromptTuningConfig``, ``PromptEncoderConfig`` and ``PrefixTuningConfig`` is classified here.

Fields: PEFT 0.21.2 ``config.py``, ``tuners/prompt_tuning/config.py``, ``tuners/p_tuning/config.py``
and ``tuners/prefix_tuning/config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .options import Option, Support, alike, boolean, fraction, list_of, optional, rank, text
from .tuner_config import TunerConfig

SEQ_2_SEQ = "SEQ_2_SEQ_LM"
PREFIX_TUNING = "PREFIX_TUNING"
EMBEDDINGS = "prompt_embeddings"
"""The one tensor of such an adapter, by its role and its name on disk."""

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT

_EVERY: tuple[Option, ...] = (
    Option("num_virtual_tokens", _S, "is the number of virtual tokens", optional(rank)),
    Option("token_dim", _S, "is the width of one virtual token", optional(rank)),
    Option("num_transformer_submodules", _S, "is 2 with a decoder of its own", optional(rank)),
    Option("task_type", _S, "says where the virtual tokens go", optional(text)),
    Option("modules_to_save", _S, "trains complete modules", optional(list_of(text))),
    Option("auto_mapping", _NO, "names the base's class"),
    Option("inference_mode", _NO, "is not part of the adapter"),
    Option("num_layers", _S, "is the number of layers with a prefix", optional(rank)),
    Option("num_attention_heads", _S, "is the number of key and value heads", optional(rank)),
)
_ENCODER = "shaped the encoder, whose output is saved"

PROMPT_OPTIONS: tuple[Option, ...] = (
    *_EVERY,
    *alike(
        _NO,
        "is only used while initialising",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "tokenizer_name_or_path",
        "tokenizer_kwargs",
    ),
)
P_OPTIONS: tuple[Option, ...] = (
    *_EVERY,
    Option("encoder_reparameterization_type", _NO, _ENCODER),
    Option("encoder_hidden_size", _NO, _ENCODER, optional(rank)),
    Option("encoder_num_layers", _NO, _ENCODER, optional(rank)),
    Option("encoder_dropout", _NO, "is the encoder's dropout while training", optional(fraction)),
)
PREFIX_OPTIONS: tuple[Option, ...] = (
    *_EVERY,
    Option("encoder_hidden_size", _NO, _ENCODER, optional(rank)),
    Option("prefix_projection", _NO, "says whether there was an encoder", optional(boolean)),
    Option("init_weights", _NO, "is the initialisation"),
)


@dataclass(frozen=True)
class PromptConfig(TunerConfig):
    """The part of these configs that changes the computation: ``settings`` by the names of their
    fields, ``None`` where the file does not say."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> PromptConfig:
        """From checked fields of ``adapter_config.json``."""
        settings = {o.name: config.get(o.name) for o in _EVERY if o.support is _S}
        modules = settings.pop("modules_to_save") or ()
        if not settings["num_transformer_submodules"]:  # PEFT's own default
            decodes = settings["task_type"] == SEQ_2_SEQ
            settings["num_transformer_submodules"] = 2 if decodes else 1
        return cls(modules_to_save=tuple(modules), settings=settings)
