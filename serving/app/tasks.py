"""What a base can be asked for, from its class and config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True)
class Tasks:
    """What a base can be asked for.

    Args:
        generate: Completions; chat too, if there is a chat template.
        chat: Whether there is one.
        embed: Embeddings of its inputs.
        classify: Probabilities of labels.
        images: Its inputs are images, not text.
        pooling: How the hidden states of an input become one vector.
        labels: Names of the labels.
        several: Whether several labels can be right (sigmoid instead of softmax).
    """

    generate: bool = False
    chat: bool = False
    embed: bool = False
    classify: bool = False
    images: bool = False
    pooling: Pooling = "mean"
    labels: Mapping[int, str] | None = None
    several: bool = False

    @property
    def names(self) -> list[str]:
        """As ``GET /v1/models`` lists them."""
        every = {
            "chat": self.chat,
            "completions": self.generate,
            "embeddings": self.embed,
            "classify": self.classify,
        }
        return [name for name, can in every.items() if can]


def tasks_of(
    base: Any, *, chat_template: bool, main_input: str, pooling: Pooling | None = None
) -> Tasks:
    """What a loaded base can be asked for.

    Args:
        base: A model of transformers.
        chat_template: Whether its tokenizer has one.
        main_input: The name of its first input.
        pooling: In place of the usual one: the mean of an encoder's tokens, a decoder's last token,
            a vision model's first.
    """
    config = base.config
    name = type(base).__name__
    classify = name.endswith(("ForSequenceClassification", "ForImageClassification"))
    generate = bool(base.can_generate()) and main_input == "input_ids" and not classify
    images = main_input == "pixel_values"
    seq2seq = bool(getattr(config, "is_encoder_decoder", False)) and "Encoder" not in name
    decoder = generate or "ForCausalLM" in name
    usual: Pooling = "cls" if images else "last" if decoder else "mean"
    return Tasks(
        generate=generate,
        chat=generate and chat_template and not seq2seq,
        embed=not seq2seq and not classify and main_input in ("input_ids", "pixel_values"),
        classify=classify,
        images=images,
        pooling=pooling or usual,
        labels={int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()},
        several=getattr(config, "problem_type", None) == "multi_label_classification",
    )
