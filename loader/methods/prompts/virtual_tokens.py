"""Virtual tokens: prompt tuning, p-tuning and prefix tuning, which act on the model's inputs.

They change the inputs with which the wrapper calls the base; the base contains nothing of them. In
``generate`` they act on the first call, which fills the key-value cache; in all other calls they
lengthen the attention mask to the cache's length.

Follows PEFT 0.21, ``peft_model.py`` (``get_prompt``, the ``forward`` of each task,
``prepare_inputs_for_generation``), of
https://arxiv.org/abs/2104.08691, https://arxiv.org/abs/2103.10385, https://arxiv.org/abs/2101.00190.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....manifests.findings import loader as codes
from ....manifests.findings.errors import RoutingError
from ....manifests.language.weights import Weight
from ....registry.checks.prompts import cannot_take
from ....registry.files.facts import SitePlan
from ....registry.methods.prompt import PREFIX_TUNING
from ....registry.methods.prompt_config import SEQ_2_SEQ
from ...adapter.adapter import Adapter
from ...adapter.factors import VirtualTokens
from ...base.inputs import inputs_of
from ...routing.cache_length import cache_length
from ...routing.kv_cache import check_cache
from ...routing.routing import CURRENT
from .encoders import Encoder

Inputs = dict[str, Any]
_NO_INPUT = ("A call without input_ids and inputs_embeds", "one of them")


class Prompt(ABC):
    """One adapter's virtual tokens. ``embeddings`` are as on disk: a parameter, or the output of
    the encoder that is trained in its place."""

    def __init__(self, site: SitePlan, embeddings: Tensor | Encoder) -> None:
        self._source = embeddings
        self.tokens: int = site.settings["num_virtual_tokens"]
        self.task: str = site.settings["task_type"]

    @property
    def embeddings(self) -> Tensor:
        return self._source() if isinstance(self._source, nn.Module) else self._source

    @property
    def encoder(self) -> Encoder | None:
        return self._source if isinstance(self._source, nn.Module) else None

    def exchange(self, embeddings: Tensor) -> None:
        """Replace the parameter by another tensor."""
        self._source = embeddings

    def call(self, base: nn.Module, stepping: bool, args: Any, kwargs: Inputs) -> Any:
        """The base's forward with the virtual tokens. ``stepping``: a method of the base, such as
        ``generate``, makes this call, and not the user. Raises :class:`RoutingError` for inputs
        that cannot be combined with virtual tokens."""
        names = inspect.signature(base.forward).parameters
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        check_cache(CURRENT.get(), inputs)
        if getattr(inputs.get("past_key_values"), "is_compileable", False):
            raise _cannot("A static cache", "a dynamic one")
        if self.encoder is not None:
            self.encoder.train(base.training)  # an LSTM may have dropout
        uncached = inputs.get("use_cache") is False and inputs.get("past_key_values") is None
        self.prepare(base, inputs, stepping)
        out = base(**inputs)
        return _without_cache(out) if uncached else out

    def generate(
        self, base: nn.Module, generate: Callable[..., Any], args: Any, kwargs: Inputs
    ) -> Any:
        """The base's ``generate``, which uses :meth:`call` for each step."""
        refuse(kwargs, "position_ids", "encoder_outputs")
        self.refuse_types(kwargs)
        if cache_length(kwargs.get("past_key_values")):
            raise _cannot("A key-value cache of an earlier generate", "a new one")
        return generate(*args, **kwargs)

    @abstractmethod
    def prepare(self, base: nn.Module, inputs: Inputs, stepping: bool) -> None:
        """Change the base's ``inputs``."""

    def refuse_types(self, inputs: Inputs) -> None:
        """Refuse token types, which PEFT drops for most tasks. Those of encoders may be zeros, as
        tokenizers return them: that is what an encoder takes without any."""
        types = inputs.get("token_type_ids")
        if types is None or self.task in ("SEQ_CLS", "TOKEN_CLS"):
            return
        zeros = isinstance(types, Tensor) and self.task in ("QUESTION_ANS", "FEATURE_EXTRACTION")
        if not zeros or bool(types.any()):
            raise _cannot(
                "token_type_ids other than zeros" if zeros else "token_type_ids",
                "the call without token_type_ids",
            )

    def lengthen(self, inputs: Inputs, name: str, cached: int, new: Tensor | None) -> None:
        """Put ones for the virtual tokens in front of the mask ``name``. If there are ``cached``
        tokens, the mask must then be as long as these and the tokens of ``new`` together."""
        mask = inputs.get(name)
        if mask is None:
            return
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            raise _cannot(f"{name} of another shape than (rows, tokens)", "a dynamic cache")
        ones = mask.new_ones(mask.shape[0], self.tokens)
        mask = inputs[name] = torch.cat([ones, mask], dim=1)
        if cached and new is not None and mask.shape[1] != cached + new.shape[1]:
            raise _cannot(
                f"{name} of {mask.shape[1] - self.tokens} tokens for {new.shape[1]} new tokens and "
                f"a cache of {cached} tokens, {self.tokens} of them virtual,",
                "a mask for all tokens except the virtual ones",
            )


class InputPrompt(Prompt):
    """In front of the input's embeddings: ``embeddings`` (num_virtual_tokens, token_dim). A
    language model's logits are longer by as many tokens."""

    def prepare(self, base: nn.Module, inputs: Inputs, stepping: bool) -> None:
        refuse(inputs, *(() if stepping else ("position_ids",)))
        self.refuse_types(inputs)
        inputs.pop("position_ids", None)  # generate counts them without the virtual tokens
        cached = cache_length(inputs.get("past_key_values"))
        self.lengthen(inputs, "attention_mask", cached, _token_input(inputs))
        if cached:
            return  # the virtual tokens are in the cache
        _embed(base, inputs, self.embeddings)
        types = inputs.get("token_type_ids")
        if types is not None:
            inputs["token_type_ids"] = _before(types, 0, self.tokens)
        labels = inputs.get("labels")
        if labels is not None and labels.dim() == 2 and self.task in ("CAUSAL_LM", "TOKEN_CLS"):
            inputs["labels"] = _before(labels, -100, self.tokens)


class EncoderPrompt(Prompt):
    """In front of the encoder's input. ``embeddings`` (num_virtual_tokens or twice as many,
    token_dim): PEFT uses the first half only."""

    def prepare(self, base: nn.Module, inputs: Inputs, stepping: bool) -> None:
        if inputs.get("encoder_outputs") is not None:
            if not stepping:
                raise _cannot("encoder_outputs", "input_ids")
            return  # generate ran the encoder with the virtual tokens
        refuse(inputs, "position_ids")
        self.refuse_types(inputs)
        self.lengthen(inputs, "attention_mask", 0, None)
        _embed(base, inputs, self.embeddings[: self.tokens])

    def generate(
        self, base: nn.Module, generate: Callable[..., Any], args: Any, kwargs: Inputs
    ) -> Any:
        inputs = {**kwargs, "input_ids": kwargs.get("input_ids", kwargs.get("inputs"))}
        if args:
            inputs["input_ids"], *args = args
        inputs.pop("inputs", None)
        refuse(inputs, "encoder_outputs")
        self.prepare(base, inputs, stepping=True)
        return super().generate(base, generate, args, inputs)


class Prefix(Prompt):
    """Keys and values in front of those of each of the decoder's layers.

    ``embeddings`` (num_virtual_tokens, layers * 2 * heads * head_dim): for each token a key and a
    value for each layer.
    """

    def __init__(self, site: SitePlan, embeddings: Tensor | Encoder) -> None:
        super().__init__(site, embeddings)
        self.layers: int = site.settings["num_layers"]
        self.heads: int = site.settings["num_attention_heads"]
        self.parts: int = site.settings["num_transformer_submodules"]

    def prepare(self, base: nn.Module, inputs: Inputs, stepping: bool) -> None:
        self.refuse_types(inputs)
        if base.training and any(
            getattr(module, "gradient_checkpointing", False) for module in base.modules()
        ):
            raise _cannot("Gradient checkpointing, which skips the prefix,", "no checkpointing")
        if self.task == "QUESTION_ANS":  # PEFT drops them
            refuse(inputs, "position_ids")
        decoder = "decoder_" if self.task == SEQ_2_SEQ else ""
        cache = inputs.get("past_key_values")
        cached = cache_length(cache)
        new = _token_input(inputs, decoder)
        self.lengthen(inputs, f"{decoder}attention_mask", cached, new)
        positions = inputs.get(f"{decoder}position_ids")
        if positions is not None:
            inputs[f"{decoder}position_ids"] = positions + self.tokens
        if cached:
            return  # the prefix is in the cache
        if cache is None:
            cache = inputs["past_key_values"] = _new_cache(base, self.task == SEQ_2_SEQ)
            check_cache(CURRENT.get(), inputs)
        if not hasattr(cache, "update") and not hasattr(cache, "self_attention_cache"):
            raise _cannot(f"A {type(cache).__name__} as past_key_values", "a Cache")
        if new is None and (new := _token_input(inputs)) is None:
            raise _cannot(*_NO_INPUT)
        rows = new.shape[0]
        own = getattr(cache, "self_attention_cache", cache)
        dtype = getattr(base, "dtype", None)  # a prefix in training may be in float32
        for layer, (key, value) in enumerate(self.keys_and_values(dtype)):
            own.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), layer)

    def keys_and_values(self, dtype: torch.dtype | None = None) -> Iterable[tuple[Tensor, Tensor]]:
        """Each layer's key and value, (1, heads, num_virtual_tokens, head_dim)."""
        parts = self.embeddings
        parts = parts.to(dtype or parts.dtype)
        parts = parts.reshape(self.tokens, 2 * self.layers, self.heads, -1)
        parts = parts.permute(1, 2, 0, 3).unsqueeze(1)
        for layer in range(self.layers):
            # in encoder-decoders PEFT doubles the list and takes four items for each layer
            at = 2 * self.parts * layer % (2 * self.layers)
            yield parts[at], parts[at + 1]


def make_prompt(site: SitePlan, embeddings: Tensor | Encoder) -> Prompt:
    """The virtual tokens of a checked plan, from the placed tensor or its encoder."""
    if site.method == PREFIX_TUNING:
        return Prefix(site, embeddings)
    kind = EncoderPrompt if site.settings["task_type"] == SEQ_2_SEQ else InputPrompt
    return kind(site, embeddings)


def prompt_of(terms: Iterable[tuple[Adapter, Weight]]) -> VirtualTokens | None:
    """The virtual tokens of a call's adapters."""
    return next(
        (adapter.resident.prompt for adapter, _ in terms if adapter.resident.prompt is not None),
        None,
    )


def unsupported(site: SitePlan, base: nn.Module) -> str | None:
    """Why this live model cannot have these virtual tokens."""
    kind = type(base).__name__
    if (reason := cannot_take(site, inputs_of(base))) is not None:
        return f"a {kind} {reason}"
    if site.method != PREFIX_TUNING:
        return None if embedding_of(base) is not None else f"a {kind} has no input embeddings"
    devices = {str(d) for d in (getattr(base, "hf_device_map", None) or {}).values()}
    if len(devices - {"cpu", "disk"}) > 1:
        return "the base is on several devices, and a prefix is on one"
    return None


def refuse(inputs: Mapping[str, Any], *names: str) -> None:
    """Raise :class:`RoutingError` if one of these inputs is there."""
    for name in names:
        if inputs.get(name) is not None:
            raise _cannot(name, f"the call without {name}")


def _cannot(what: str, expected: str) -> RoutingError:
    return RoutingError(
        codes.PROMPT_INPUT.finding(
            f"{what} cannot be combined with virtual tokens", expected=expected
        )
    )


def embedding_of(base: nn.Module) -> nn.Module | None:
    """The base's token embedding, on whose device virtual tokens are; ``None`` without one."""
    getter = getattr(base, "get_input_embeddings", None)
    try:
        found = getter() if callable(getter) else None
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def _embed(base: nn.Module, inputs: Inputs, prompt: Tensor) -> None:
    """Put ``prompt`` in front of the embeddings of each row."""
    embeds = inputs.get("inputs_embeds")
    ids = inputs.pop("input_ids", None)
    if embeds is None:
        embedding = embedding_of(base)
        if ids is None or embedding is None:
            raise _cannot(*_NO_INPUT)
        embeds = embedding(ids)
    prompt = prompt.to(embeds.device, embeds.dtype).expand(embeds.shape[0], -1, -1)
    inputs["inputs_embeds"] = torch.cat([prompt, embeds], dim=1)


def _before(tensor: Tensor, value: int, count: int) -> Tensor:
    return torch.cat([tensor.new_full((tensor.shape[0], count), value), tensor], dim=1)


def _token_input(inputs: Inputs, decoder: str = "") -> Tensor | None:
    """The ids or embeddings of the call's tokens."""
    for name in (f"{decoder}input_ids", f"{decoder}inputs_embeds"):
        if isinstance(inputs.get(name), Tensor):
            return inputs[name]
    return None


def _new_cache(base: nn.Module, decoder: bool) -> Any:
    from transformers import DynamicCache, EncoderDecoderCache

    config: Any = base.config
    if not decoder:
        return DynamicCache(config=config)
    # the decoder may have more layers than the encoder, whose layers T5's config counts
    config = getattr(cast(Any, base).get_decoder(), "config", config)
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def _without_cache(out: Any) -> Any:
    """A call without ``use_cache`` returns no cache: ``generate`` would continue with it."""
    if not isinstance(out, dict) or out.get("past_key_values") is None:
        return out
    return type(out)(**{k: v for k, v in out.items() if k != "past_key_values"})
