"""A prompt in, text out: what `adapterdock run` and the quickstart do with a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..manifests.codes import loader as loader_codes
from ..manifests.codes import usage as codes
from ..manifests.errors import AdapterdockError, AttachError, UsageError

if TYPE_CHECKING:
    from .adapted import AdaptedModel


def load_tokenizer(model: AdaptedModel) -> Any:
    """The tokenizer that was pulled with the model's base (a transformers tokenizer). Raises
    :class:`UsageError` for a model whose base was not loaded from a manifest."""
    deployment = model.deployment
    if deployment is None or deployment.base_folder is None:
        raise UsageError(codes.NEEDS_BASE.finding("the base was not loaded from a manifest"))
    return transformers.AutoTokenizer.from_pretrained(deployment.base_folder, local_files_only=True)


def encode(tokenizer: Any, prompt: str, *, chat: bool) -> dict[str, torch.Tensor]:
    """The prompt as the model's inputs, (1, tokens) each; through the chat template if ``chat``
    and the tokenizer has one."""
    if chat and getattr(tokenizer, "chat_template", None):
        encoded = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        encoded = tokenizer(prompt, return_tensors="pt")
    return {k: v for k, v in encoded.items() if k in ("input_ids", "attention_mask")}


def answer(
    model: AdaptedModel,
    tokenizer: Any,
    prompt: str,
    *,
    adapter: str | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    chat: bool = True,
    write: Callable[[str], None] | None = None,
) -> str:
    """What the model writes after ``prompt``, under ``adapter`` (``None``: what is active).

    ``write`` is given the text piece by piece as it comes, if there is one."""
    inputs = {k: v.to(model.device) for k, v in encode(tokenizer, prompt, chat=chat).items()}
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": temperature}
    route: dict[str, Any] = {} if adapter is None else {"adapter": adapter}
    if write is not None:
        sampling["streamer"] = _Streamer(tokenizer, write)
    try:
        output = model.generate(**inputs, **route, **sampling, max_new_tokens=max_new_tokens)
    except AdapterdockError:
        raise
    except Exception as error:
        raise AttachError(
            loader_codes.GENERATE_FAILED.finding(
                "the model could not answer", found=f"{type(error).__name__}: {error}"
            )
        ) from error
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return tokenizer.decode(output[0, start:], skip_special_tokens=True).strip()


class _Streamer(transformers.TextStreamer):
    """Gives finished words to a function, where transformers' own prints them."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._write(text)
