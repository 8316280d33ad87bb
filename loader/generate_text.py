"""Generate text from a prompt, for `adapterdock run` and the quickstart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..manifests.findings import loader as loader_codes
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, AttachError, UsageError
from ..manifests.manifest import ManifestFile
from ..registry.checks.fetching import check as check_fetching
from .base.chat_template import check_template
from .base.transformers_log import quiet

if TYPE_CHECKING:
    from .adapted import AdaptedModel


def load_tokenizer(model: AdaptedModel) -> Any:
    """The transformers tokenizer that was pulled with the model's base.

    Raises :class:`UsageError` if the base was not loaded from a manifest, and
    :class:`AttachError` if transformers cannot load a tokenizer from the base's files.
    """
    deployment = model.deployment
    if deployment is None or deployment.base_folder is None:
        raise UsageError(codes.NEEDS_BASE.finding("The base was not loaded from a manifest"))
    file = deployment.file
    _refuse_code_elsewhere(deployment.base_folder, file)
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(
                deployment.base_folder,
                local_files_only=True,
                trust_remote_code=file.manifest.base.trust_remote_code,
            )
    except Exception as error:
        raise AttachError(
            loader_codes.TOKENIZER_NOT_LOADED.finding(
                "Cannot load the base's tokenizer",
                file.where(("base", "model")),
                found=f"{type(error).__name__}: {str(error).strip()[:500]}",
            )
        ) from error


def _refuse_code_elsewhere(folder: Path, file: ManifestFile) -> None:
    """Check ``auto_map`` of the tokenizer too: it may name Python files of another repository."""
    config = folder / "tokenizer_config.json"
    if not file.manifest.base.trust_remote_code or not config.is_file():
        return
    where = file.where(("base", "model"))
    if found := check_fetching(json.loads(config.read_bytes()), where, remote_code=True):
        raise AttachError(*found)


Prompt = str | Sequence[Mapping[str, str]]
"""A text, or the messages of a conversation: ``role`` and ``content`` each."""


def encode(tokenizer: Any, prompt: Prompt, *, chat: bool) -> dict[str, torch.Tensor]:
    """The prompt as ``input_ids`` and ``attention_mask``, int64 (1, tokens); with the tokenizer's
    chat template, if ``chat``. Without one, messages are lines of text. Raises
    :class:`AttachError` for a template that cannot be used."""
    if chat and getattr(tokenizer, "chat_template", None):
        first = {"role": "user", "content": prompt} if isinstance(prompt, str) else None
        messages = [first] if first else [dict(one) for one in prompt if not isinstance(one, str)]
        check_template(tokenizer.get_chat_template(), messages, tokenizer.special_tokens_map)
        encoded = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        lines = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt]
        encoded = tokenizer("\n".join(lines), return_tensors="pt")
    return {k: v for k, v in encoded.items() if k in ("input_ids", "attention_mask")}


def fitting(
    model: AdaptedModel,
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    *,
    chat: bool,
    max_new_tokens: int,
) -> Sequence[Mapping[str, str]]:
    """The last messages that leave room for an answer, beginning with one of the user."""
    most = getattr(model.config, "max_position_embeddings", None)
    while most is not None and len(messages) > 2:
        tokens = encode(tokenizer, messages, chat=chat)["input_ids"].shape[1]
        if tokens + max_new_tokens <= most:
            break
        messages = messages[2:]
    return messages


def answer(
    model: AdaptedModel,
    tokenizer: Any,
    prompt: Prompt,
    *,
    adapter: str | Mapping[str, float] | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    chat: bool = True,
    write: Callable[[str], None] | None = None,
) -> str:
    """The model's answer to ``prompt`` with ``adapter``: a name, or names with weights (default:
    the active adapters).

    ``write`` is called with each piece of the answer as soon as it is generated.
    """
    how: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if temperature > 0:
        how |= {"do_sample": True, "temperature": temperature}
    else:  # sampling options of the base's generation config would give warnings
        how |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if adapter is not None:
        how["adapter"] = adapter
    if write is not None:
        how["streamer"] = _Streamer(tokenizer, write)
    try:
        encoded = encode(tokenizer, prompt, chat=chat)
        inputs = {k: v.to(model.device) for k, v in encoded.items()}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            output = model.generate(**inputs, **how)
    except AdapterdockError:
        raise
    except Exception as error:
        raise AttachError(
            loader_codes.GENERATE_FAILED.finding(
                "The model failed to generate", found=f"{type(error).__name__}: {error}"
            )
        ) from error
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return tokenizer.decode(output[0, start:], skip_special_tokens=True).strip()


class _Streamer(transformers.TextStreamer):
    """Passes finished words to a function instead of printing them."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._write(text)
