"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for, and that waits at once.

    Args:
        body_bytes: Bytes of a body.
        new_tokens: Tokens of one answer; also the default where a request says nothing.
        context: Tokens of a prompt and its answer together; ``None`` for the base's own limit.
        choices: Rows of one request: inputs, or prompts times ``n``.
        stops: Stop texts.
        stop_characters: Characters of one of them.
        waiting: Rows that wait for a batch, of all requests.
        rows: Rows of one batch.
        wait_seconds: How long the first row of a batch waits for others.
        answer_seconds: How long a request may wait for its answer.
    """

    body_bytes: int = 8 << 20
    new_tokens: int = 1024
    context: int | None = None
    choices: int = 16
    stops: int = 4
    stop_characters: int = 200
    waiting: int = 256
    rows: int = 8
    wait_seconds: float = 0.01
    answer_seconds: float = 600.0
