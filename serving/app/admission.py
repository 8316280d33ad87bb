"""Every request is checked completely before one of its rows waits for a batch."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...manifests.findings import serving as codes
from .engine import Engine
from .failure import RequestError, invalid, not_served, too_large
from .keys import Caller
from .limits import Limits
from .requests import (
    AnyRequest,
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingsRequest,
    Generation,
    as_list,
)
from .rows import GenerationRow, Kind, Piece, Row, Sampling

Hear = Callable[[int, Piece], None]


@dataclass(frozen=True)
class Admitted:
    """The rows of a request, and the tokens of its prompts (each counts once)."""

    rows: Sequence[Row]
    prompt_tokens: int


class Admission:
    """Makes rows of requests. May be called from any thread.

    Args:
        engine: Knows names, tokens and what the base can do.
        limits: What a request may ask for.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits

    def names_for(self, caller: Caller) -> list[str]:
        """The names that the caller may use, by themselves."""
        found: list[str] = []
        for name in self._engine.names:
            if caller.may_use(name):
                try:
                    self._engine.check_name(name)
                except RequestError:
                    continue
                found.append(name)
        return found

    def generation(
        self, request: ChatRequest | CompletionRequest, caller: Caller, hear: Hear
    ) -> Admitted:
        """The rows of a chat or of completions: ``n`` for each prompt.

        Raises:
            RequestError: Something is wrong with the request. None of its rows runs.
        """
        self._check(request, caller, "generate")
        limits, engine = self._limits, self._engine
        stops = (*self._stops(request), *engine.row_stops())
        if isinstance(request, ChatRequest):
            self._check_count(request.n, "n")
            prompts = [engine.prompts.chat(request.messages)]
            param = "messages"
        else:
            texts = as_list(request.prompt)
            many = len(texts) > 1 and request.n <= limits.choices
            self._check_count(len(texts) * request.n, "prompt" if many else "n")
            prompts = [engine.prompts.tokens(text, "prompt") for text in texts]
            param = "prompt"
        if (wanted := request.new_tokens) is not None and wanted > limits.new_tokens:
            raise _new_tokens(wanted, limits.new_tokens)
        seed = secrets.randbits(62) if request.seed is None else request.seed
        rows: list[Row] = []
        for prompt in prompts:
            new = self._room(request.model, len(prompt), wanted, param)
            for _ in range(request.n):
                number = len(rows)
                rows.append(
                    GenerationRow(
                        "generate",
                        request.model,
                        _to(hear, number),
                        prompt,
                        key=engine.key("generate", request.model, len(prompt)),
                        sampling=Sampling(
                            request.temperature, request.top_p, request.top_k, seed + number
                        ),
                        new_tokens=new,
                        stops=stops,
                        ends=engine.row_ends(),
                        text_of=engine.prompts.text,
                    )
                )
        return Admitted(rows, sum(map(len, prompts)))

    def inputs(
        self, request: EmbeddingsRequest | ClassifyRequest, caller: Caller, hear: Hear
    ) -> Admitted:
        """The rows of inputs that become vectors.

        Raises:
            RequestError: Something is wrong with the request. None of its rows runs.
        """
        kind: Kind = "classify" if isinstance(request, ClassifyRequest) else "embed"
        self._check(request, caller, kind)
        inputs = as_list(request.input)
        self._check_count(len(inputs), "input")
        engine = self._engine
        rows: list[Row] = []
        for number, one in enumerate(inputs):
            row = Row(kind, request.model, _to(hear, number))
            if engine.tasks.images:
                row.pixels = engine.prompts.pixels(one, "input")
            else:
                row.ids = engine.prompts.tokens(one, "input")
                self._room(request.model, len(row.ids), 0, "input")
            row.key = engine.key(kind, request.model, len(row.ids))
            rows.append(row)
        return Admitted(rows, sum(len(row.ids) for row in rows))

    # -- single checks ---------------------------------------------------------------------

    def _check(self, request: AnyRequest, caller: Caller, kind: Kind) -> None:
        if not caller.may_use(request.model):
            raise not_served(request.model)
        self._engine.check_name(request.model)
        tasks = self._engine.tasks
        can = {"generate": tasks.generate, "embed": tasks.embed, "classify": tasks.classify}
        if not can[kind]:
            raise RequestError(
                codes.NOT_FOR_THIS_BASE.finding(
                    "The base cannot answer this kind of request",
                    expected=", ".join(tasks.names) or "nothing that this server knows",
                )
            )

    def _check_count(self, rows: int, param: str) -> None:
        # more than may wait would never be answered, however often it is sent again
        most = min(self._limits.choices, self._limits.waiting)
        if rows > most:
            raise too_large(
                "The request has too many rows", param, found=rows, expected=f"at most {most}"
            )

    def _stops(self, request: Generation) -> tuple[str, ...]:
        stops, limits = request.stops, self._limits
        if len(stops) > limits.stops:
            raise too_large(
                "Too many stop texts", "stop", found=len(stops), expected=f"at most {limits.stops}"
            )
        if any(not stop for stop in stops):
            raise invalid("A stop text is empty", "stop")
        if any(len(stop) > limits.stop_characters for stop in stops):
            raise too_large(
                "A stop text is too long",
                "stop",
                found=max(map(len, stops)),
                expected=f"at most {limits.stop_characters} characters",
            )
        return stops

    def _room(self, name: str, prompt: int, wanted: int | None, param: str) -> int:
        """How many new tokens a prompt has room for: those that are wanted, or all there are."""
        engine, limits = self._engine, self._limits
        virtual, own = engine.virtual_tokens(name), engine.positions.row
        known = (limits.context, own)
        context = min((number for number in known if number is not None), default=None)
        # an encoder reads its prompt in one place, and writes its answer in another
        apart = engine.apart_from_prompt
        least = 0 if wanted == 0 or apart else 1 if wanted is None else wanted
        if context is not None and virtual + prompt + least > context:
            found = f"{prompt} tokens" + (f", and {least} new ones" if least else "")
            found += f", and {virtual} virtual ones of {name!r}" if virtual else ""
            raise too_large(
                "The prompt is too long", param, found=found, expected=f"at most {context} tokens"
            )
        if apart:
            room = limits.new_tokens if own is None else min(limits.new_tokens, own - virtual)
            if wanted is not None and wanted > room:
                raise _new_tokens(wanted, room)
        else:
            room = limits.new_tokens
            room = room if context is None else min(room, context - virtual - prompt)
        return room if wanted is None else wanted


def _new_tokens(wanted: int, most: int) -> RequestError:
    return too_large("Too many new tokens", "max_tokens", found=wanted, expected=f"at most {most}")


def _to(hear: Hear, number: int) -> Callable[[Piece], None]:
    return lambda piece: hear(number, piece)
