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
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AdapterdockError, PolicyError, RoutingError
from ...manifests.language.names import BASE_ROW
from .failure import RequestError, invalid, not_served
from .history import history_of
from .padding import padded
from .positions import positions_of
from .prompts import Prompts
from .rows import GenerationRow, Kind, Row
from .sampler import RowSampler
from .streamer import RowStreamer
from .tasks import Pooling, tasks_of
from .vectors import chances, hand_out, last_states, pooled

_UNKNOWN = codes.ADAPTER_UNKNOWN.id
_NOT_OF_A_BATCH: dict[str, Any] = {
    "repetition_penalty": None,
    "no_repeat_ngram_size": None,
    "min_length": None,
    "stop_strings": None,
    "forced_eos_token_id": None,
    "max_time": None,
    "prompt_lookup_num_tokens": None,
    "token_healing": False,
}
"""What a base's generation config may say that ``generate`` cannot do for each row by itself. The
first four are done here; the others would end the answers of a whole batch, or refuse a batch."""


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
        self.positions = positions_of(base)
        folder = None if model.deployment is None else model.deployment.base_folder
        self.prompts = Prompts(tokenizer, self.tasks, _vocabulary(base), folder)
        self._seq2seq = bool(getattr(base.config, "is_encoder_decoder", False))
        self._ends = _ends(base, tokenizer)
        self._stops = _stops(base)
        self._history = history_of(getattr(base, "generation_config", None), self._ends)
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
        virtual = bool(self.virtual_tokens(adapter))
        alone = adapter if virtual or kind in self._apart else None
        return (kind, alone, length if virtual or self._equal_lengths else None)

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether these rows can be one batch: the base has positions for all of them together,
        and the residency budget has room for their adapters at once."""
        return self._in_positions(rows) and self._in_budget({row.adapter for row in rows})

    def virtual_tokens(self, name: str) -> int:
        """How many positions an adapter or composition takes before the prompt."""
        here = self.host.adapters.by_name
        members = (here.get(member) for member in self._members(name))
        numbers = (one.config.get("num_virtual_tokens") for one in members if one is not None)
        return max((number for number in numbers if isinstance(number, int)), default=0)

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
            # a name that was removed while its row waited says nothing of the base
            told_apart = not isinstance(error, RoutingError) or error.code == _UNKNOWN
            if not told_apart and len({row.adapter for row in rows}) > 1:
                self._apart.add(kind)
            raise

    def row_ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._ends

    def row_stops(self) -> tuple[str, ...]:
        """Texts that end an answer, besides those of the request."""
        return self._stops

    def _generate(self, rows: Sequence[GenerationRow]) -> None:
        inputs: Any = padded(
            [row.ids for row in rows], self._pad, self.model.device, left=not self._seq2seq
        )
        longest = max(len(row.ids) for row in rows)
        padding = [0 if self._seq2seq else longest - len(row.ids) for row in rows]
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
            logits_processor=LogitsProcessorList([RowSampler(rows, self._history, padding)]),
            stopping_criteria=StoppingCriteriaList([RowStreamer(rows)]),
            **_NOT_OF_A_BATCH,
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

    def _in_positions(self, rows: Sequence[Row]) -> bool:
        most = self.positions.batch
        if most is None or (self._seq2seq and rows[0].kind == "generate"):
            return True  # (an encoder adds nothing to a prompt, and all answers begin together)
        new = max(row.new_tokens if isinstance(row, GenerationRow) else 0 for row in rows)
        virtual = max(self.virtual_tokens(row.adapter) for row in rows)
        return virtual + max(len(row.ids) for row in rows) + new <= most

    def _in_budget(self, adapters: Collection[str]) -> bool:
        budget = self.host.adapters.residency.budget
        if budget is None or len(adapters) == 1:
            return True
        here = self.host.adapters.by_name
        wanted = {member for name in adapters for member in self._members(name)}
        return sum(here[name].nbytes for name in wanted if name in here) <= budget

    def _members(self, name: str) -> Collection[str]:
        if name in self.host.adapters.by_name:
            return (name,)
        return self.host.state.compositions.get(name, ())


def _of_one_row(error: AdapterdockError, adapter: str) -> Exception:
    """What a row that ran alone answers. The findings stay here: they may name other adapters."""
    if isinstance(error, PolicyError):
        return invalid(f"The manifest's rules forbid {adapter!r} by itself", "model")
    if isinstance(error, RoutingError) and error.code == _UNKNOWN:
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


def _stops(base: Any) -> tuple[str, ...]:
    said = getattr(getattr(base, "generation_config", None), "stop_strings", None) or ()
    return (said,) if isinstance(said, str) else tuple(said)


def _pad(base: Any, tokenizer: Any) -> int | None:
    for owner in (tokenizer, base.config, getattr(base, "generation_config", None)):
        if isinstance(pad := getattr(owner, "pad_token_id", None), int):
            return pad
    said = getattr(tokenizer, "eos_token_id", None)
    return said if isinstance(said, int) else None
