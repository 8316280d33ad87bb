"""A base with its adapters, and how rows of many requests run on it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, cast

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from ...loader.adapted import AdaptedModel
from ...loader.generate_text import load_tokenizer
from ...loader.model.host import AdapterHost
from ...loader.model.stand_in import host_of
from ...manifests.findings.errors import AdapterdockError, PolicyError, RoutingError
from ...manifests.language.names import BASE_ROW
from .failure import RequestError, invalid, not_served
from .padding import padded
from .prompts import Prompts
from .rows import GenerationRow, Kind, Row
from .sampler import RowSampler
from .streamer import RowStreamer
from .tasks import Pooling, tasks_of
from .vectors import chances, hand_out, last_states, pooled


class Engine:
    """Runs batches of rows, each with its own adapter.

    Args:
        model: Loaded from a manifest.
        pooling: How embeddings are made; by default as :func:`tasks_of` says.

    Raises:
        AttachError: The base's tokenizer or image processor cannot be loaded.
    """

    def __init__(self, model: AdaptedModel, pooling: Pooling | None = None) -> None:
        self.model = model
        self.host: AdapterHost = host_of(model)
        base: Any = model.get_base_model()
        takes: str = getattr(base, "main_input_name", "input_ids")
        tokenizer = load_tokenizer(model) if takes == "input_ids" else None
        template = bool(getattr(tokenizer, "chat_template", None))
        self.tasks = tasks_of(base, chat_template=template, main_input=takes, pooling=pooling)
        folder = None if model.deployment is None else model.deployment.base_folder
        self.prompts = Prompts(tokenizer, self.tasks, _vocabulary(base), folder)
        self._seq2seq = bool(getattr(base.config, "is_encoder_decoder", False))
        self._ends = _ends(base, tokenizer)
        pad = _pad(base, tokenizer)
        self._pad = 0 if pad is None else pad
        # A state-space model reads padding as text. A decoder with a head looks for the last token
        # that is no padding, by the token.
        decoder_head = self.tasks.classify and not hasattr(base.config, "type_vocab_size")
        self._equal_lengths = bool(getattr(base, "_is_stateful", False)) or (
            decoder_head
            and takes == "input_ids"
            and getattr(base.config, "pad_token_id", 0) is None
        )
        self._apart: set[Kind] = set()

    # -- names -----------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Every name that may be asked for: adapters, compositions, and the base alone."""
        state = self.host.state
        adapters = [n for n in self.host.adapters.by_name if n not in state.compositions]
        return [BASE_ROW, *adapters, *state.compositions]

    def check_name(self, name: str) -> None:
        """Raise :class:`RequestError` for a name that is not served, or not by itself."""
        if name not in self.names:
            raise not_served(name)
        try:
            self.host.choice.routing(None if name == BASE_ROW else name)
        except PolicyError:
            raise invalid(f"The manifest's rules forbid {name!r} by itself", "model") from None
        except RoutingError:  # removed at this moment
            raise not_served(name) from None

    @property
    def apart_from_prompt(self) -> bool:
        """Whether an answer takes no room of its prompt: an encoder read that."""
        return self._seq2seq

    def changed(self) -> None:
        """The adapters are others now: what was learnt of them does not count."""
        self._apart = set()

    # -- batches ---------------------------------------------------------------------------

    def key(self, kind: Kind, adapter: str, length: int) -> Hashable:
        """Rows with equal keys may run in one batch."""
        # padding between virtual tokens and a prompt would change the answer
        virtual = self._has_tokens(adapter)
        alone = adapter if virtual or kind in self._apart else None
        return (kind, alone, length if virtual or self._equal_lengths else None)

    def fits(self, adapters: Collection[str]) -> bool:
        """Whether the residency budget has room for all of these at once."""
        budget = self.host.adapters.residency.budget
        if budget is None:
            return True
        here = self.host.adapters.by_name
        wanted = {member for name in adapters for member in self._members(name)}
        return sum(here[name].nbytes for name in wanted if name in here) <= budget

    def run(self, rows: Sequence[Row]) -> None:
        """Run rows of one kind as one batch; answers each of them.

        Raises:
            Exception: What the model raised; rows that are not finished got no answer.
        """
        kind = rows[0].kind
        try:
            with torch.no_grad():
                if kind == "generate":
                    self._generate(cast("Sequence[GenerationRow]", rows))
                else:
                    self._vectors(kind, rows)
        except AdapterdockError as error:
            if len(rows) == 1:
                raise _of_one_row(error, rows[0].adapter) from error
            if isinstance(error, RoutingError) and len({row.adapter for row in rows}) > 1:
                self._apart.add(kind)  # this base's rows cannot be told apart
            raise

    def row_ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._ends

    def _generate(self, rows: Sequence[GenerationRow]) -> None:
        inputs: Any = padded(
            [row.ids for row in rows], self._pad, self.model.device, left=not self._seq2seq
        )
        self.model.generate(
            **inputs,
            adapter_names=[row.adapter for row in rows],
            max_new_tokens=max(row.new_tokens for row in rows),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=self._pad,
            logits_processor=LogitsProcessorList([RowSampler(rows)]),
            stopping_criteria=StoppingCriteriaList([RowStreamer(rows)]),
        )

    def _vectors(self, kind: Kind, rows: Sequence[Row]) -> None:
        if self.tasks.images:
            pixels = torch.stack([row.pixels for row in rows])
            inputs = {"pixel_values": pixels.to(self.model.device, self.model.dtype)}
        else:
            inputs = padded([row.ids for row in rows], self._pad, self.model.device, left=False)
        more = {} if kind == "classify" else {"output_hidden_states": True}
        out = self.model(**inputs, **more, adapter_names=[row.adapter for row in rows])
        if kind == "classify":
            hand_out(rows, chances(out.logits, several=self.tasks.several))
        else:
            mask = inputs.get("attention_mask")
            hand_out(rows, pooled(last_states(out), mask, self.tasks.pooling))

    def _members(self, name: str) -> Collection[str]:
        if name in self.host.adapters.by_name:
            return (name,)
        return self.host.state.compositions.get(name, ())

    def _has_tokens(self, name: str) -> bool:
        """Whether it has virtual tokens: all rows of a batch need the same ones."""
        here = self.host.adapters.by_name
        members = (here.get(member) for member in self._members(name))
        return any(one is not None and "num_virtual_tokens" in one.config for one in members)


def _of_one_row(error: AdapterdockError, adapter: str) -> Exception:
    """What a row that ran alone answers. The findings stay here: they may name other adapters."""
    if isinstance(error, PolicyError):
        return invalid(f"The manifest's rules forbid {adapter!r} by itself", "model")
    if isinstance(error, RoutingError) and error.code == "AD730":
        return not_served(adapter)
    first = error.findings[0]
    return RequestError(
        type(first)(
            first.code, first.name, first.severity, f"Cannot run {adapter!r}", hint=first.hint
        )
    )


def _vocabulary(base: Any) -> int | None:
    try:
        weight = base.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    return int(weight.shape[0])


def _ends(base: Any, tokenizer: Any) -> frozenset[int]:
    config = getattr(base, "generation_config", None)
    said = getattr(config, "eos_token_id", None)
    if said is None:
        said = getattr(tokenizer, "eos_token_id", None)
    if said is None:
        return frozenset()
    return frozenset(said if isinstance(said, (list, tuple)) else [int(said)])


def _pad(base: Any, tokenizer: Any) -> int | None:
    for owner in (tokenizer, base.config, getattr(base, "generation_config", None)):
        if isinstance(pad := getattr(owner, "pad_token_id", None), int):
            return pad
    said = getattr(tokenizer, "eos_token_id", None)
    return said if isinstance(said, int) else None
