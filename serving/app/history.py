"""What a base's generation config says of the tokens so far, for one row at a time.

transformers' own processors count the padding before a shorter prompt as tokens of the row: then a
row would have another answer beside a longer one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import (
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)


def history_of(config: Any, ends: Collection[int]) -> LogitsProcessorList:
    """The processors of a row.

    Args:
        config: The base's generation config; ``None`` for a base that does not generate.
        ends: Tokens that end an answer.
    """
    found = LogitsProcessorList()
    penalty = getattr(config, "repetition_penalty", None)
    ngram = getattr(config, "no_repeat_ngram_size", None)
    least = getattr(config, "min_length", None)
    if penalty is not None and penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(float(penalty)))
    if ngram:
        found.append(NoRepeatNGramLogitsProcessor(ngram))
    if least and ends:
        found.append(_Least(least, ends))
    return found


class _Least(MinLengthLogitsProcessor):
    """On whichever device the scores are."""

    def __init__(self, least: int, ends: Collection[int]) -> None:
        super().__init__(least, sorted(ends))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores of rows that may not end yet."""
        self.eos_token_id = self.eos_token_id.to(scores.device)
        return super().__call__(input_ids, scores)
