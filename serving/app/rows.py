"""One row of a batch: what it asks for, what it has so far, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from .failure import RequestError
from .stop_text import StopText

Kind = Literal["generate", "embed", "classify"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """What a row says to its request: more text, and at its end why it ended; a vector; or an
    error. ``finish`` or ``error`` is the last."""

    text: str = ""
    finish: Finish | Literal["done"] | None = None
    vector: tuple[float, ...] = ()
    error: RequestError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.finish is not None or self.error is not None


@dataclass(frozen=True)
class Sampling:
    """How a row's next token is chosen.

    Args:
        temperature: 0 for the likeliest token.
        top_p: Only the likeliest tokens that have this probability together.
        top_k: Only so many of the likeliest; ``None`` for all.
        seed: Of the row's own random numbers.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0


@dataclass(eq=False)
class Row:
    """One row. ``hear`` is called in the thread that runs the model; ``cancelled`` is set by the
    request, where nobody waits for the answer any more.

    Args:
        kind: What is done with it.
        adapter: An adapter, a composition or ``__base__``.
        hear: Gets each piece of the answer.
        ids: Its tokens.
        pixels: An image as the model's processor makes it, in place of tokens.
        key: Rows of one batch have equal keys.
    """

    kind: Kind
    adapter: str
    hear: Callable[[Piece], None]
    ids: tuple[int, ...] = ()
    pixels: Any = None
    key: Hashable = None
    cancelled: bool = False
    finished: bool = False

    @property
    def started(self) -> bool:
        """Whether a part of its answer was sent, so that it cannot run again."""
        return False

    def again(self) -> None:
        """Forget a run that failed before anything was sent."""

    def fail(self, error: RequestError) -> None:
        """End it with an error, unless it has ended."""
        if not self.finished:
            self.finished = True
            self.hear(Piece(error=error))

    def answer(self, vector: tuple[float, ...]) -> None:
        """End it with a vector."""
        self.finished = True
        self.hear(Piece(finish="done", vector=vector))


@dataclass(eq=False)
class GenerationRow(Row):
    """A row whose answer is generated, token by token."""

    sampling: Sampling = field(default_factory=Sampling)
    new_tokens: int = 16
    stops: tuple[str, ...] = ()
    ends: frozenset[int] = frozenset()
    """Tokens that end an answer."""
    text_of: Callable[[list[int]], str] = field(default=lambda ids: "")
    """From tokens to text, without special tokens."""
    taken: list[int] = field(default_factory=list)
    """The tokens of its text."""
    tokens: int = 0
    """How many were generated, the one at the end included."""
    _sent: bool = False
    _read: int = 0
    """Tokens whose text is complete and was passed on."""
    _from: int = 0
    """The first token that the next text depends on."""
    _stop: StopText = field(init=False)

    def __post_init__(self) -> None:
        self._stop = StopText(self.stops)

    @property
    def started(self) -> bool:
        return self._sent

    def again(self) -> None:
        self.taken, self.tokens, self._read, self._from = [], 0, 0, 0
        self._stop = StopText(self.stops)

    def take(self, token: int) -> None:
        """The next token of the answer."""
        if self.finished:
            return
        if self.cancelled:
            self.finished = True
            return
        self.tokens += 1
        if token in self.ends:
            self._end("stop")
            return
        self.taken.append(token)
        text, stopped = self._stop.feed(self._more_text())
        if stopped:
            self._say(text, "stop")
        elif self.tokens >= self.new_tokens:
            self._end("length", text)
        elif text:
            self._say(text)

    def _end(self, finish: Finish, before: str = "") -> None:
        """The rest of the text, which may still hold a stop text, and the end."""
        rest, stopped = self._stop.feed(self._more_text(last=True))
        tail = "" if stopped else self._stop.rest()
        self._say(before + rest + tail, "stop" if stopped else finish)

    def _say(self, text: str, finish: Finish | None = None) -> None:
        self._sent = True
        self.finished = finish is not None
        self.hear(Piece(text, finish))

    def _more_text(self, last: bool = False) -> str:
        """The text that the newest tokens add. A character of several tokens comes as a whole.

        A token's text depends on the one before it (a space at a word's beginning), so a piece is
        the difference of two texts that begin at the same token.
        """
        before = self.text_of(self.taken[self._from : self._read])
        now = self.text_of(self.taken[self._from :])
        if not last and (now.endswith("\ufffd") or len(now) <= len(before)):
            return ""
        self._from, self._read = self._read, len(self.taken)
        return now[len(before) :]
