"""Tells each row of a running batch its next token.

transformers' own streamers take one row. A stopping criterion sees all of them after each step,
and says of each whether it has ended, so that rows stop at their own lengths and stop texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

from .rows import GenerationRow


class RowStreamer(StoppingCriteria):
    """Passes new tokens on to the rows of a batch, and ends those that are finished."""

    def __init__(self, rows: Sequence[GenerationRow]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether each row has ended: bool (rows,). ``input_ids`` (rows, tokens) end in the newest
        token of each row."""
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token)
        ended = [row.finished for row in self._rows]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)
