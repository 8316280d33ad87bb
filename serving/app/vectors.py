"""From what a model returns to one vector for each row: embeddings, and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...manifests.findings import loader as codes
from .failure import RequestError
from .rows import Row
from .tasks import Pooling


def pooled(states: torch.Tensor, mask: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """One vector of length 1 for each row: (rows, size) in float32.

    Args:
        states: The last hidden states, (rows, tokens, size), or (rows, size, height, width).
        mask: Which tokens count, (rows, tokens); ``None`` for all.
        pooling: ``mean`` of the tokens, the first (``cls``) or the last token that counts.
    """
    states = states.float()
    if states.dim() == 4:
        states = states.flatten(2).transpose(1, 2)
    if mask is None:
        mask = torch.ones(states.shape[:2], device=states.device)
    if pooling == "mean":
        weights = mask.to(states).unsqueeze(-1)
        # a token that does not count may hold anything, and 0 times infinity is no number
        vectors = torch.where(weights > 0, states, 0).sum(1) / weights.sum(1)
    else:
        numbers = torch.arange(states.shape[1], device=states.device)
        counting = torch.where(mask > 0, numbers, -1 if pooling == "last" else states.shape[1])
        at = counting.amax(1) if pooling == "last" else counting.amin(1)
        vectors = states[torch.arange(len(states), device=states.device), at]
    return torch.nn.functional.normalize(vectors, dim=1)


def chances(logits: torch.Tensor, *, several: bool) -> torch.Tensor:
    """Probabilities of labels, (rows, labels) in float32; the score itself where there is one
    label (a regression)."""
    logits = logits.float()
    if logits.shape[-1] == 1 and not several:
        return logits
    return torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)


def last_states(out: Any) -> torch.Tensor:
    """The last hidden states in what a model returned."""
    states = getattr(out, "last_hidden_state", None)
    if states is None:
        states = out.hidden_states[-1]
    return states


def hand_out(rows: Sequence[Row], vectors: torch.Tensor) -> None:
    """Answer each row with its vector; a row with values that are not numbers fails."""
    good = torch.isfinite(vectors).all(dim=1).tolist()
    for row, vector, fine in zip(rows, vectors.tolist(), good, strict=True):
        if fine:
            row.answer(tuple(vector))
        else:
            row.fail(
                RequestError(
                    codes.GENERATE_FAILED.finding(
                        "The adapter or the base computes values that are not numbers"
                    )
                )
            )
