"""The next token of each row of a batch, by the row's own temperature, top_p, top_k and seed.

``generate`` has one way of sampling for a whole batch. So it decodes greedily here, and this
processor leaves a row that samples one token to take. Each row has random numbers of its own: what
it answers does not depend on the rows beside it.

What depends on the tokens so far (a penalty for repetition) is computed here too, without the
padding of a shorter prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from ...manifests.findings import loader as codes
from .failure import RequestError
from .rows import GenerationRow, Sampling


class RowSampler(LogitsProcessor):
    """Chooses the tokens of the rows that sample. A row whose scores are not numbers fails.

    Args:
        rows: Of the batch.
        history: What changes a row's scores because of its tokens so far.
        padding: How many tokens of padding are before each row's prompt; by default none.
    """

    def __init__(
        self,
        rows: Sequence[GenerationRow],
        history: LogitsProcessorList | None = None,
        padding: Sequence[int] | None = None,
    ) -> None:
        self._rows, self._history = rows, history
        self._padding = [0] * len(rows) if padding is None else padding
        self._generators = [
            torch.Generator().manual_seed(row.sampling.seed & (2**63 - 1)) for row in rows
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) in which greedy decoding takes each row's token."""
        # NaN, or an infinite score, of which no chances can be made
        broken = (~torch.isfinite(scores.amax(dim=1))).tolist()
        out = scores.clone() if self._history else scores
        for at, row in enumerate(self._rows):
            if row.finished:
                continue
            if broken[at]:
                row.fail(
                    RequestError(
                        codes.GENERATE_FAILED.finding(
                            "The adapter or the base computes values that are not numbers"
                        )
                    )
                )
                continue
            if self._history:
                own = input_ids[at : at + 1, self._padding[at] :]
                out[at] = cast("Any", self._history)(own, scores[at : at + 1])[0]
            if row.sampling.temperature > 0:
                token = sample(out[at], row.sampling, self._generators[at])
                out = out.clone() if out is scores else out
                out[at] = -torch.inf
                out[at, token] = 0
        return out


def sample(scores: torch.Tensor, how: Sampling, generator: torch.Generator) -> int:
    """A token of ``scores`` (vocabulary,), drawn on the CPU in float32."""
    scaled = scores.detach().to("cpu", torch.float32) / max(how.temperature, 1e-4)
    if how.top_k is not None and how.top_k < len(scaled):
        lowest = torch.topk(scaled, how.top_k).values[-1]
        scaled = scaled.masked_fill(scaled < lowest, -torch.inf)
    chances = torch.softmax(scaled, dim=0)
    if how.top_p < 1:
        ordered, tokens = torch.sort(chances, descending=True)
        # the first token always stays, as in transformers' TopPLogitsWarper
        beyond = ordered.cumsum(0) - ordered >= how.top_p
        chances = chances.index_fill(0, tokens[beyond], 0)
    return int(torch.multinomial(chances, 1, generator=generator))
